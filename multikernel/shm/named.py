"""Named memory as a descriptor: a memfd of fixed size, that one process after the other maps writable."""

from __future__ import annotations

import fcntl
import os
from typing import Any

from multikernel._core import failure, ffi, lib
from multikernel.errors import CorruptLane

_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def rounded(size: int) -> int:
    """The least whole number of pages, 1 at least. ValueError if that is no size of a memory."""
    page: int = lib.mk_page_size()
    if not 0 < size <= lib.MK_CAPACITY_MAX:
        raise ValueError(f"a memory of {size} bytes: there can be 1 to {lib.MK_CAPACITY_MAX}")
    return -(-size // page) * page


def make(name: str, size: int) -> int:
    """Make one of `size` bytes, all zero and all there (a shortage is an error here). Its descriptor; OSError."""
    fd = os.memfd_create(f"memory:{name}"[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(fd, 0, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SIZE_SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_one(fd: int) -> bool:
    """Whether a descriptor is that of a memory that `make` could have made."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SIZE_SEALS == _SIZE_SEALS and os.fstat(fd).st_size > 0
    except OSError:
        return False


def mapped(fd: int, size: int) -> memoryview:
    """All of it, writable, for as long as this process runs; a forked child does not have it. `fd` is closed.

    Raises:
        CorruptLane: it is not `size` bytes long, or may change its size.
        OSError: it cannot be mapped.
    """
    base: Any = ffi.new("void **")
    try:
        if os.fstat(fd).st_size != size or fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SIZE_SEALS != _SIZE_SEALS:
            raise CorruptLane(f"the host has sent something else than a memory of {size} bytes", size=size)
        code = lib.mk_object_map(fd, size, True, base)
    finally:
        os.close(fd)
    if code:
        raise failure(code, f"mapping a memory of {size} bytes")
    return memoryview(ffi.buffer(base[0], size)).cast("B")
