"""Reading files for an image: each whole, and all as they were at one moment."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from typing import TypeAlias

from multikernel.errors import ImageError

from .image import MAX_IMAGE
from .sealed import read_file

MAX_FILES = 20_000
"""Most files that an image may have."""

_LEFT_OUT = re.compile(r"\.(pyc|pyo|so(\.[0-9.]+)?)$")

Identity: TypeAlias = tuple[int, int, int, int, int]
Entry: TypeAlias = tuple[str, str, Identity]
"""Path, name under which it is kept, which state of which file."""


def read_one(path: str, name: str) -> bytes:
    """The file at `path`, for the image `name`.

    Raises:
        ImageError: it is missing, unreadable, no file, or too large; or it changed while it was read.
    """
    try:
        return read_file(path, MAX_IMAGE)
    except OSError as error:
        raise ImageError(f"cannot load {name!r}: {_reason(path, error)}.", path=path) from error


def read_tree(directory: str, top: str, name: str, limit: int = MAX_IMAGE) -> dict[str, bytes]:
    """The files in `directory` and below that belong into an image, by their name there.

    Caches, hidden files and extension modules stay out. Links are followed, never in circles.

    Args:
        directory: where.
        top: what stands before each name: "pkg/", or nothing.
        name: of the image, for messages.
        limit: bytes, of all together.

    Raises:
        ImageError: something cannot be read, or changed while it was; or there are too many files or bytes.
    """
    files: dict[str, bytes] = {}
    try:
        entries = _look(directory, top, name)
        for path, inside, _ in entries:
            files[inside] = read_file(path, limit)
            limit -= len(files[inside])
        again = _look(directory, top, name)
    except OSError as error:
        path = error.filename or directory
        raise ImageError(f"cannot load {name!r}: {_reason_in_tree(path, error)}.", path=path) from error
    if again != entries:
        raise ImageError(
            f"cannot load {name!r}: {directory} changed while it was read. Load it again when it is written.",
            path=directory,
        )
    return files


def walk(
    directory: str, prefix: str = "", *, everything: bool, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[Entry]:
    """What is in `directory` and below, but for the directories, in the order of names.

    Links are followed, never in circles.

    Args:
        directory: where.
        prefix: what stands before each name.
        everything: False: only what belongs into an image of Python source.
        above: the directories that led here.
    """
    status = os.stat(directory)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            name = f"{prefix}{entry.name}"
            if not everything and (entry.name.startswith(".") or entry.name == "__pycache__" or not name.isprintable()):
                continue
            if entry.is_dir():
                yield from walk(entry.path, f"{name}/", everything=everything, above=above | {here})
            elif everything or (entry.is_file() and not _LEFT_OUT.search(entry.name)):
                yield entry.path, name, _identity(entry.stat())


def _look(directory: str, top: str, name: str) -> list[Entry]:
    entries = []
    for entry in walk(directory, top, everything=False):
        entries.append(entry)
        if len(entries) > MAX_FILES:
            raise ImageError(
                f"cannot load {name!r}: {directory} has more than {MAX_FILES} files. Is it a package?",
                limit=MAX_FILES,
            )
    return entries


def _identity(status: os.stat_result) -> Identity:
    """What changes when a file is another one, or is written to."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _reason(path: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"there is no file {path}{_beside(path)}"
    if error.errno == errno.EFBIG:
        return f"{path} is larger than the {MAX_IMAGE} bytes that an image may have"
    if error.errno == errno.ESTALE:
        return f"{path} changed while it was read. Load it again when it is written"
    return f"{path} cannot be read: {error.strerror}"


def _reason_in_tree(path: str, error: OSError) -> str:
    if error.errno == errno.EFBIG:
        return f"with {path} it has more than the {MAX_IMAGE} bytes that an image may have"
    if error.errno == errno.ENOTDIR:
        return f"{path} is not a directory; is the package inside of an archive?"
    if error.errno == errno.ESTALE:
        return f"{path} changed while it was read. Load it again when it is written"
    return f"{path} cannot be read: {error.strerror}"


def _beside(path: str) -> str:
    """What is there instead."""
    suffix = os.path.splitext(path)[1]
    try:
        there = sorted(each for each in os.listdir(os.path.dirname(path)) if os.path.splitext(each)[1] == suffix)
    except OSError as error:
        return f", and of its directory: {error.strerror}"
    more = ", ..." if len(there) > 8 else ""
    if there:
        return f". Its directory has {', '.join(there[:8])}{more}"
    return f", nor any other {suffix} beside it" if suffix else ""
