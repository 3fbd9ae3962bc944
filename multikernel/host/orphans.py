"""Instances that have lost the zygote that started them: their ends are seen by pidfd.

The status of an end is told to the parent alone. That is this host, where the zygote was a child of it. Otherwise it is
another process; then the status is seen in /proc until that one has taken it, unless the instance was closed to this
user's other processes and the system minds that in zombies, too (6.18 does); and after that newer systems (6.15) have
kept it for who holds a pidfd.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
from typing import TYPE_CHECKING, TypeAlias

from multikernel.kernel import process

if TYPE_CHECKING:
    from collections.abc import Callable

    from multikernel.host.incarnation import Incarnation

Status: TypeAlias = tuple[int, int, bool]
"""Exit status, and the signal that ended it, one of which is 0; whether the system has written a core file."""

_INFO = struct.Struct("=QQ11Ii")  # struct pidfd_info of <linux/pidfd.h> in its first version: mask, 12 ids, status
_INFO_EXIT = 1 << 3  # PIDFD_INFO_EXIT: the status is wanted, and there
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11  # PIDFD_GET_INFO, _IOWR(0xFF, 11, struct pidfd_info)
_PROCESS_GROUP = 1 << 2  # PIDFD_SIGNAL_PROCESS_GROUP, since Linux 6.9
_LOOKS = 5  # at an end whose status is hidden until its parent has taken it, which most do at once
_BETWEEN = 0.01  # seconds: all of it is little beside the second that links wait for what becomes of the instance


class Orphans:
    """The incarnations that this host watches itself.

    Args:
        ended: called with an incarnation that has ended, and how; None: that cannot be known.
    """

    def __init__(self, ended: Callable[[Incarnation, Status | None], None]) -> None:
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._watched: dict[int, Incarnation] = {}  # by pid

    def watch(self, run: Incarnation) -> None:
        """Watch one whose zygote is gone. Watching twice is fine."""
        if run.pidfd < 0:  # it had ended when we came, and its parent cannot be asked any more
            self._loop.call_soon(self._ended, run, None)
        elif run.pid not in self._watched:
            self._watched[run.pid] = run
            self._loop.add_reader(run.pidfd, self._on_end, run)

    def reap(self) -> None:
        """Take the ends of children: those that are watched, and strays that came to us when their parent ended."""
        while ended := _ended_child():
            run = self._watched.get(ended)
            if run is not None:
                self._on_end(run)
            else:
                os.waitpid(ended, 0)

    def close(self) -> None:
        """Watch nothing any more."""
        for run in self._watched.values():
            self._loop.remove_reader(run.pidfd)
        self._watched.clear()

    def _on_end(self, run: Incarnation) -> None:
        self._loop.remove_reader(run.pidfd)
        # What it has left in its process group: by the pidfd, which means that very group though its pid be gone.
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(run.pidfd, signal.SIGKILL, None, _PROCESS_GROUP)
        try:
            taken = os.waitid(os.P_PIDFD, run.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:  # it is another's child
            self._look(run, _LOOKS)
            return
        if taken is None:
            self._loop.add_reader(run.pidfd, self._on_end, run)
            return
        exited = taken.si_code == os.CLD_EXITED
        code, number = (taken.si_status, 0) if exited else (0, taken.si_status)
        self._tell(run, (code, number, taken.si_code == os.CLD_DUMPED))

    def _look(self, run: Incarnation, looks: int) -> None:
        """Tell how another's child has ended, now or when its parent has taken that."""
        if self._watched.get(run.pid) is not run:  # closed meanwhile
            return
        taken = is_taken(run.pidfd)
        status = status_of(run.pid, run.pidfd)
        if status is None and not taken and looks:
            self._loop.call_later(_BETWEEN, self._look, run, looks - 1)
        else:
            self._tell(run, status)

    def _tell(self, run: Incarnation, status: Status | None) -> None:
        del self._watched[run.pid]
        self._ended(run, status)


def status_of(pid: int, pidfd: int) -> Status | None:
    """How a process has ended that is another's child. None: the system does not tell."""
    status = process.status_of_zombie(pid)
    if is_taken(pidfd):  # what was seen may have been another's
        return _kept_status(pidfd)
    return None if status is None else _parts(status)


def is_taken(pidfd: int) -> bool:
    """Whether the parent of a process has been told of its end."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it has changed its user, and is there
        return False
    return False


def _kept_status(pidfd: int) -> Status | None:
    """How a process has ended whose parent has been told; None: the system is too old to keep that."""
    try:
        info = fcntl.ioctl(pidfd, _GET_INFO, _INFO.pack(_INFO_EXIT, *[0] * 13))
    except OSError:
        return None
    mask, *_, code = _INFO.unpack(info)
    return _parts(code) if mask & _INFO_EXIT else None


def _parts(status: int) -> Status:
    return os.WEXITSTATUS(status), os.WTERMSIG(status), os.WCOREDUMP(status)


def _ended_child() -> int | None:
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return ended.si_pid if ended else None
