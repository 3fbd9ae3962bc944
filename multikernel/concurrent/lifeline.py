"""A lifeline: whoever holds on to one is killed by the system as soon as the process that has its anchor is gone.

PR_SET_PDEATHSIG would do the same only for children of a thread that lives as long as its process, and not for those of
a fork server. Here the end of the last writer of a pipe raises a signal at its readers (O_ASYNC, F_SETSIG: fcntl(2));
no thread waits for it, and code that never gives up the interpreter lock is ended as well.
"""

from __future__ import annotations

import fcntl
import os
import signal
import weakref
from collections.abc import Callable
from typing import Any


class Anchor:
    """What a lifeline hangs on. A forked child has no copy of it: that would keep alive what the program has left.

    Args:
        fd: write end of a pipe; this object's from now on.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        _anchors.add(self)

    def close(self) -> None:
        """End all who hold on to the lifeline. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


_anchors: weakref.WeakSet[Anchor] = weakref.WeakSet()


def _drop_copies() -> None:
    for anchor in list(_anchors):
        anchor.close()


os.register_at_fork(after_in_child=_drop_copies)


class Lifeline:
    """The end to hold on to; it may be passed to a child (fork, spawn or forkserver), and serves any number of them.

    Args:
        fd: read end of a pipe; this object's from now on.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def throw(cls) -> tuple[Lifeline, Anchor]:
        """A lifeline, and its anchor."""
        reading, writing = os.pipe()
        return cls(reading), Anchor(writing)

    def hold(self) -> None:
        """Be killed (SIGKILL) when the process of the anchor ends: at once, whatever this process is doing then.

        Raises:
            OSError: the system does not do this.
        """
        # Whom to signal is a property of the open file, so each process opens its own.
        mine = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(mine, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(mine, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(mine, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        try:
            gone = os.read(mine, 1) == b""  # it ended before we asked for the signal
        except BlockingIOError:
            gone = False
        self.close()
        self._fd = mine
        if gone:
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        """Let go. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Lifeline], tuple[Any, ...]]:
        from multiprocessing import reduction

        return _rebuild, (reduction.DupFd(self._fd),)


def _rebuild(fd: Any) -> Lifeline:
    return Lifeline(fd.detach())
