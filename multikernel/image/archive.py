"""Files as one run of bytes, the same bytes for the same files whenever and wherever: a zip archive, stored.

The names are relative paths with "/". Nothing is ever extracted: names are only looked up.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

from multikernel.errors import ImageError

_EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip knows no time before


def pack(files: Mapping[str, bytes]) -> bytes:
    """The archive of `files`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3  # Unix, wherever it is packed
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def unpack(content: bytes) -> dict[str, bytes]:
    """The files that `pack` has packed.

    Raises:
        ImageError: it is no such archive.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                    raise ImageError(f"the image is damaged: {entry.filename!r} is compressed or encrypted")
            return {entry.filename: archive.read(entry) for entry in archive.infolist()}
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"the image is damaged: {error}") from error
