"""Bytes in a sealed memfd: whoever holds the descriptor can read them, nobody can change them any more.

Everything here works on the descriptor alone, never on a path under /proc: it must not matter whether a process is
dumpable, who it is, or whether there is a /proc.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

_MFD_EXEC = 0x10  # may be executed, also where the sysctl vm.memfd_noexec says that others may not
_CHUNK = 1 << 20
_MAX_MEMFD_NAME = 249  # memfd_create(2)


def seal(content: bytes, name: str, *, executable: bool = False) -> int:
    """A descriptor of a new sealed memfd named `name` (cut to what fits) with `content`; to be executed, or only read.

    Raises:
        OSError: there is not enough memory, or no descriptor is left; all of it is taken here, none later.
    """
    fd = create(name, executable=executable)
    try:
        if content:
            os.posix_fallocate(fd, 0, len(content))
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(fd, rest) :]
        add_seals(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def create(name: str, *, executable: bool = False) -> int:
    """A new memfd named `name` (cut to what fits), to be filled and sealed. OSError: no descriptor is left."""
    name = os.fsdecode(os.fsencode(name)[:_MAX_MEMFD_NAME])
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | (_MFD_EXEC if executable else 0))
    except OSError as error:
        if error.errno != errno.EINVAL or not executable:
            raise
        return os.memfd_create(name, flags)  # before Linux 6.3 every one could be executed


def add_seals(fd: int) -> None:
    """Nobody changes what is in it from now on. OSError: somebody has mapped it writable."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)


def is_sealed(fd: int) -> bool:
    """Whether `fd` is a memfd whose content and size are what they are for ever."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
    except OSError as error:
        if error.errno == errno.EINVAL:  # no memfd
            return False
        raise


def read_fd(fd: int, limit: int) -> bytes:
    """The file from its beginning, at most `limit` bytes of it. Its position is neither used nor moved."""
    parts, position = [], 0
    while position < limit and (part := os.pread(fd, min(_CHUNK, limit - position), position)):
        parts.append(part)
        position += len(part)
    return b"".join(parts)


def read_file(path: str, limit: int) -> bytes:
    """The regular file at `path`.

    Raises:
        OSError: it cannot be read; EISDIR or EINVAL: it is a directory, or a device, socket or pipe; EFBIG: it has
            more than `limit` bytes; ESTALE: it was written to meanwhile.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe that nobody writes must not hold us up
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a directory", path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        # By its size first: a sparse file of terabytes costs nothing to refuse. Then by what is read: it may grow.
        content = read_fd(fd, limit + 1) if status.st_size <= limit else b""
        if max(len(content), status.st_size) > limit:
            raise OSError(errno.EFBIG, "it is too large", path)
        after = os.fstat(fd)
        if len(content) != after.st_size or after.st_mtime_ns != status.st_mtime_ns:
            raise OSError(errno.ESTALE, "it changed while it was read", path)
        return content
    finally:
        os.close(fd)
