"""An initrd: data that an instance is given beside its image, a file or a directory, sealed as the image is.

A file is its bytes. A directory travels as a tar archive, the same bytes for the same files; nothing is ever extracted.
An instance maps it, so nothing is copied, and what it does not look at costs no memory of its own.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, Self, TypeAlias

from multikernel.errors import ImageError

from . import sealed
from .files import walk

KINDS = ("file", "directory")
View: TypeAlias = memoryview | Mapping[str, memoryview]

_CHUNK = 1 << 20
_CHANGED = "it changed while it was read. Load it again when it is written"
EXTRA = "initrd"
"""With a colon and the kind behind it, the name of the descriptor among those that an instance is given."""

_WHAT = (
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


@dataclass(eq=False)
class Initrd:
    """Sealed data, and how it is packed. Owns `fd` until it is closed; `with` works.

    Attributes:
        kind: "file", or "directory" (a tar archive of it).
        size: bytes.
        fd: a memfd, sealed against every change; -1 once closed.
    """

    kind: str
    size: int
    fd: int

    @classmethod
    def read(cls, path: str, limit: int) -> Self:
        """Copy the file, or all files of the directory, at `path`. Links in a directory are followed.

        Args:
            path: where; relative to the working directory.
            limit: most bytes that it may take.

        Raises:
            ImageError: it is missing, unreadable, neither file nor directory, too large, or changed while it was read.
            OSError: there is not enough memory for a copy.
        """
        is_directory = os.path.isdir(path)
        fd = sealed.create(f"initrd:{os.path.basename(path)}")
        try:
            with open(fd, "wb", closefd=False) as file:
                (_write_tar if is_directory else _write)(path, file, limit)
            sealed.add_seals(fd)
            return cls("directory" if is_directory else "file", os.fstat(fd).st_size, fd)
        except BaseException as error:
            os.close(fd)
            if isinstance(error, OSError) and error.filename is not None:
                raise _refused(str(error.filename), f"it cannot be read: {error.strerror}") from error
            raise

    @classmethod
    def received(cls, kind: str, fd: int) -> Self:
        """The one that another process has read and passed `fd` for.

        Raises:
            ImageError: there is no such kind, or the descriptor is not sealed. It is still the caller's then.
        """
        if kind not in KINDS:
            raise ImageError(f"there are no initrds of kind {kind!r}; there are {', '.join(KINDS)}", kinds=KINDS)
        if not sealed.is_sealed(fd):
            raise ImageError("the initrd is not sealed: it could change under whoever reads it")
        return cls(kind, os.fstat(fd).st_size, fd)

    def extra(self) -> dict[str, int]:
        """It as one of the descriptors that an instance is given."""
        return {f"{EXTRA}:{self.kind}": self.fd}

    def close(self) -> None:
        """Give the descriptor back. A second time does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def view(extras: Mapping[str, int]) -> View | None:
    """Map the initrd that is among the descriptors of an instance, and close its descriptor. None: there is none.

    Returns:
        Of a file a read-only view of its bytes; of a directory such a view by relative path.

    Raises:
        ImageError: it is damaged.
        OSError: there is no address space for it.
    """
    for kind in KINDS:
        fd = extras.get(f"{EXTRA}:{kind}", -1)
        if fd < 0:
            continue
        try:
            mapped = _map(fd)
            if mapped is None:
                return memoryview(b"")
            return memoryview(mapped) if kind == "file" else _unpack(mapped)
        finally:
            os.close(fd)
    return None


def _write(path: str, file: IO[bytes], limit: int) -> None:
    """Copy the file at `path`, as it is at one moment."""
    _check_regular(path, os.stat(path))  # before it is opened: to open a device may do something
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as source:
        before = os.fstat(source.fileno())
        _check_regular(path, before)  # by now it may be another file
        if file.tell() + before.st_size > limit:
            raise _refused(
                path, f"with it there are more than the {limit} bytes that the instance has. Give that more memory"
            )
        rest = before.st_size
        while rest and (part := source.read(min(_CHUNK, rest))):
            file.write(part)
            rest -= len(part)
        after = os.fstat(source.fileno())
        if rest or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise _refused(path, _CHANGED)


def _write_tar(directory: str, file: IO[bytes], limit: int) -> None:
    """Copy all files in `directory`, as they are at one moment."""
    import tarfile

    entries = list(walk(directory, everything=True))
    for path, name, (_, _, size, *_) in entries:
        info = tarfile.TarInfo(name)
        info.mode, info.size = 0o444, size
        file.write(info.tobuf(tarfile.PAX_FORMAT))
        _write(path, file, limit)
        file.write(bytes(-size % tarfile.BLOCKSIZE))
    file.write(bytes(2 * tarfile.BLOCKSIZE))
    if list(walk(directory, everything=True)) != entries:
        raise _refused(directory, _CHANGED)


def _check_regular(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = next((name for is_it, name in _WHAT if is_it(status.st_mode)), "something else")
        raise _refused(path, f"it is {what}. An initrd is a file or a directory of files")


def _refused(path: str, reason: str) -> ImageError:
    return ImageError(f"cannot load the initrd {path}: {reason}.", path=path)


def _map(fd: int) -> mmap.mmap | None:
    """All of it; None: it is empty, and what is empty cannot be mapped."""
    size = os.fstat(fd).st_size
    # Private: before Linux 6.7 a shared map of what is sealed against writing was refused, even a read-only one.
    return mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) if size else None


def _unpack(mapped: mmap.mmap) -> Mapping[str, memoryview]:
    import tarfile

    whole = memoryview(mapped)
    found = {}
    try:
        with tarfile.open(fileobj=mapped, mode="r:") as archive:
            for info in archive:
                data = whole[info.offset_data : info.offset_data + info.size]
                if not info.isreg() or len(data) != info.size:
                    raise ImageError(f"the initrd is damaged at {info.name!r}")
                found[info.name] = data
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ImageError(f"the initrd is damaged: {error}") from error
    return MappingProxyType(found)
