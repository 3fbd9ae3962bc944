"""Where an incarnation's faulthandler writes: memory that outlives it, of a size that nobody can change."""

from __future__ import annotations

import fcntl
import os

SIZE = 64 * 1024
"""Bytes; what does not fit is not written. faulthandler stops at 100 threads of 100 frames."""


def make(name: str) -> int:
    """A descriptor to write to, and later to read. Memory is taken as it is written. OSError: there is none."""
    fd = os.memfd_create(f"crash:{name}"[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, SIZE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read(fd: int) -> str:
    """What stands there; "": nothing was written."""
    return os.pread(fd, SIZE, 0).partition(b"\0")[0].decode(errors="replace")
