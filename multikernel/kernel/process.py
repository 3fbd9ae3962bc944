"""What a process of a machine asks of the system for itself; over csrc/process.c."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from typing import TYPE_CHECKING

from multikernel._core import failure, lib
from multikernel.errors import MultikernelError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

THREAD_POOLS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that say how many threads a library starts."""

_imports: list[str] = []  # the image that this process imports right now


@contextlib.contextmanager
def importing(name: str) -> Iterator[None]:
    """A block in which this process is an instance that imports its image, called `name`."""
    _imports.append(name)
    try:
        yield
    finally:
        _imports.pop()


def check_imports_nothing() -> None:
    """Refuse to make a machine while an image is imported: its instance would import that again, and so on.

    Raises:
        MultikernelError: a script makes one that is not meant to be run when it is imported.
    """
    if _imports:
        raise MultikernelError(
            f"{_imports[-1]!r} makes a machine while an instance imports it as its image. What a program does when it "
            'is run as one belongs under `if __name__ == "__main__":`.'
        )


def die_with(parent: int) -> None:
    """Be killed when process `parent`, of one thread, ends.

    Raises:
        ProcessLookupError: it has ended already.
    """
    _check(lib.mk_process_die_with(parent), "asking to be killed at the parent's end")


def close_up() -> None:
    """Keep other processes of this user (root excepted) out of this one's memory and descriptors; see process.h."""
    _check(lib.mk_process_close_up(), "closing the process to others")


def stay_dumpable() -> None:
    """Take back what `close_up` does for the sake of core files and debuggers, and allow core files of any size."""
    _check(lib.mk_process_stay_dumpable(), "leaving the process dumpable")
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))


def set_name(name: str) -> None:
    """Set what ps and top show; cut at 15 bytes."""
    _check(lib.mk_process_name(name.encode("utf-8", "replace")), "naming the process")


def adopt_orphans() -> None:
    """Become the parent of descendants that lose theirs, to reap and to end them."""
    _check(lib.mk_process_adopt(), "becoming the parent of orphans")


def register_for_barriers() -> None:
    """Register for membarrier(2), as the first claim of a lane's end does, while that is cheap.

    It takes some microseconds in a process of one thread, and milliseconds later. A fork inherits it. Where there is
    no membarrier the lanes do without.
    """
    lib.mk_membarrier_register()


def current_cpu() -> int:
    """The cpu that this thread runs on now."""
    cpu: int = lib.mk_process_cpu()
    _check(min(cpu, 0), "reading the cpu number")
    return cpu


def close_all_but(keep: Collection[int]) -> None:
    """Close every descriptor from 3 up that is not among `keep`."""
    start = 3
    for fd in sorted(fd for fd in keep if fd >= 3):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, max(start, _highest_descriptor() + 1))


def default_signals() -> None:
    """Handle every signal as a fresh Python program does, whatever the process that was forked did."""
    signal.set_wakeup_fd(-1)
    for number in _handled():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):  # the C library's own, and faulthandler's, stay
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _handled() -> list[int]:
    """The signals that this process ignores or handles; by the system, since Python is slow to say so of each."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        masks = [int(line.split()[1], 16) for line in status if line.startswith(("SigIgn:", "SigCgt:"))]
    both = masks[0] | masks[1]
    return [number for number in range(1, signal.NSIG) if both >> (number - 1) & 1]


def children() -> Iterator[int]:
    """The pids of this process's children, those that it has adopted too, and those that are zombies."""
    own = os.getpid()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:
            # pid (name) state ppid ...; the name may hold anything, so count from its last parenthesis
            if int(stat.read().rpartition(b")")[2].split()[1]) == own:
                yield int(name)


def started(pid: int) -> int:
    """When a process was started, in clock ticks since the system's boot: with the pid, it is that very process.

    0 if there is no such process any more.
    """
    return _stat(pid, 19) or 0


def status_of_zombie(pid: int) -> int | None:
    """How a process has ended whose parent has not asked yet, as `waitpid` tells it.

    None: it has not, is gone, or was closed to this user's other processes, and newer systems leave it so.
    """
    status = _stat(pid, 49)
    return None if status == 0 and _is_closed(pid) else status


def kill_descendants(spare: Collection[int] = ()) -> None:
    """Kill and reap every child but `spare`; those of theirs become ours then (`adopt_orphans`), until none is left."""
    spared = set(spare)  # likewise one that has changed its user and may not be killed: it must not be waited for
    while pids := set(children()) - spared:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except PermissionError:
                spared.add(pid)
        for pid in pids - spared:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _stat(pid: int, field: int) -> int | None:
    """A number of /proc/PID/stat, counted from the state, behind the last parenthesis. None: no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[field])
    except OSError:
        return None


def _is_closed(pid: int) -> bool:
    """Whether this process may not look into another one: then /proc/PID/stat shows 0 where there is something."""
    try:
        os.readlink(f"/proc/{pid}/exe")
    except PermissionError:
        return True
    except OSError:  # a zombie, into which we may look, has none
        return False
    return False


def _highest_descriptor() -> int:
    # By name, since the limit may be a billion, and may have been lowered below what is open.
    return max((int(name) for name in os.listdir("/proc/self/fd")), default=2)


def _check(code: int, what: str) -> None:
    if code < 0:
        raise failure(code, what)
