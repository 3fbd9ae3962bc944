"""Inside of a run directory: its lock, and the files in it that may be removed; see `multikernel.host.rundir`."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING

from multikernel.errors import MultikernelError

if TYPE_CHECKING:
    from pathlib import Path

CONTENTS = ("control", "host.log", "machine", "machine.new")
"""The files that a run directory may hold."""

INSTANCES = "instances"
"""The directory that it may hold: of files that are named by numbers."""

PATIENCE = 0.25  # seconds; who only looks, or clears up, holds a lock for some microseconds
PAUSE = 0.002  # seconds between two tries for a lock


def take(path: Path, how: int = fcntl.LOCK_EX) -> int:
    """Open the directory `path` and lock it; the descriptor is the lock.

    Raises:
        BlockingIOError: somebody holds it.
        FileNotFoundError: it is not there, or no longer.
        NotADirectoryError: something else is there.
    """
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
        _check_same(path, lock)
    except BaseException:
        os.close(lock)
        raise
    return lock


def take_patiently(path: Path) -> int:
    """As `take`, waiting for one who only looks."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return take(path)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(PAUSE)  # noqa: TID251 - nothing tells when a lock is free; bounded by the deadline


def lives(lock: int) -> bool:
    """Whether instances live, in the directory that is locked by `lock`: only its holder may try."""
    try:
        instances = os.open(INSTANCES, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=lock)
    except OSError:  # none, as with an ephemeral machine; or something that is no directory
        return False
    try:
        fcntl.flock(instances, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(instances)
    return False


def _check_same(path: Path, lock: int) -> None:
    if not os.path.samestat(os.lstat(path), os.fstat(lock)):
        raise FileNotFoundError(errno.ENOENT, "removed and made anew", str(path))


def erase(path: Path, lock: int) -> None:
    """Remove the directory `path`, locked by `lock`; FileNotFoundError if another is at its place."""
    _check_same(path, lock)  # a forked copy of this lock may have removed it, and the name be somebody else's now
    clear(path, lock)
    path.rmdir()


def clear(path: Path, lock: int) -> None:
    """Remove our files, by the descriptor: never those in another directory that has come to be at `path`."""
    strange = sorted(set(os.listdir(lock)).difference(CONTENTS, (INSTANCES,)))
    instances = None
    try:
        instances = os.open(INSTANCES, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=lock)
    except FileNotFoundError:  # as in most; or a forked copy of the lock clears up at the same time
        pass
    except OSError:
        strange.append(INSTANCES)
    try:
        records = os.listdir(instances) if instances is not None else []
        strange += sorted(f"{INSTANCES}/{name}" for name in records if not name.removesuffix(".new").isdigit())
        if strange:
            raise MultikernelError(
                f"{path} holds what is not multikernel's: {', '.join(strange)}. "
                "Remove it, or set MULTIKERNEL_RUN to another directory.",
                path=str(path),
                strange=tuple(strange),
            )
        for directory, names in ((instances, records), (lock, CONTENTS)):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
    finally:
        if instances is not None:
            os.close(instances)
    if instances is not None:
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(INSTANCES, dir_fd=lock)
