"""Images of a zip archive with a `__main__.py`: `app.pyz`, as zipapp makes one and `python app.pyz` runs it.

The file itself is the image, byte for byte, so its digest is what `sha256sum` says of it. Nothing is ever extracted,
and an archive inside of it is a file like any other. Extension modules in it are data: the system's loader wants a
file.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from multikernel.errors import ImageError

from .files import MAX_FILES, read_one
from .found import Found
from .image import MAX_IMAGE
from .source import MAIN_FILE, MAIN_MODULE
from .tops import check_tops

SUFFIX = ".pyz"


def load(origin: str, entry: str, *, name: str, path: list[str]) -> Found:
    """Read the archive at `origin`.

    Raises:
        ImageError: it is missing or unreadable, no archive or a damaged one, has no `__main__.py`, would unfold into
            more than an image may have, or has a module that would hide one that the instance itself runs on.
    """
    content = read_one(origin, name)
    try:
        files = unpack(content)
    except ImageError as error:
        raise ImageError(f"cannot load {name!r}: {origin} {error}", path=origin) from error.__cause__
    if MAIN_FILE not in files:
        raise ImageError(
            f"cannot load {name!r}: {origin} has no {MAIN_FILE}, but {len(files)} other files. Make it anew: "
            "python -m zipapp DIRECTORY, with one in the directory.",
            path=origin,
        )
    check_tops(files, name)
    return Found("pyz", name, entry, MAIN_MODULE, origin, path, content, files)


def unpack(content: bytes) -> dict[str, bytes]:
    """The files of an archive, by name. What is before the archive, such as a `#!` line, is skipped.

    Raises:
        ImageError: it is damaged, or is none of a program.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check_entries(entries)
            return {entry.filename: archive.read(entry) for entry in entries}
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        OSError,
        IndexError,
        OverflowError,
        ValueError,
        NotImplementedError,
    ) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"is no whole zip archive: {error}. Make it anew.") from error


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    """Before anything is unfolded: names that stay inside, each once, and sizes that together may be."""
    if len(entries) > MAX_FILES:
        raise ImageError(f"has {len(entries)} files; at most {MAX_FILES} may be in an image.")
    seen = set()
    for entry in entries:
        name = entry.filename
        parts = name.split("/")
        if "\\" in name or not name.isprintable() or {"", ".", ".."} & set(parts):
            raise ImageError(f"has a file that would lie outside of it, or nowhere: {name!r}. Make it anew without.")
        if name in seen:
            raise ImageError(f"has {name!r} twice, and which one counts nobody can say. Make it anew.")
        seen.add(name)
        if entry.flag_bits & 1:
            raise ImageError(f"has an encrypted file, {name!r}. An instance has no key: make it anew without one.")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # The others are unfolded without a limit, whatever the size is said to be.
            raise ImageError(f"has {name!r} compressed in a way that Python runs no program from. Make it anew.")
    size = sum(entry.file_size for entry in entries)
    if size > MAX_IMAGE:
        raise ImageError(f"would unfold into {size} bytes; an image has at most {MAX_IMAGE}.")
