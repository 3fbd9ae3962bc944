"""Run a command inside an instance: on its cpus, and no longer than it lives.

The command is a child of the caller and not of the instance, whose image knows nothing of it: so its terminal, its
standard files and its signals are the caller's, as of any command of a shell.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from multikernel.errors import ResourceError
from multikernel.host.states import refused
from multikernel.kernel import process
from multikernel.units import format_cpus

if TYPE_CHECKING:
    from multikernel.machine import Instance

_PASSED_ON = {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
_BY_THE_SYSTEM = 0x80  # SI_KERNEL: a terminal's, which its whole foreground group has got


class NotStarted(Exception):
    """There is no such command (status 127, as a shell has it), or it cannot be run (126)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def run(
    instance: Instance, command: Sequence[str], environment: Mapping[str, str], directory: str | None = None
) -> tuple[int, bool]:
    """Run a command on an active instance's cpus, and wait for its end. For the main thread of a process of one.

    It is killed when the instance ends, or this process does. What it has left behind at its end is killed, too.

    Args:
        instance: where.
        command: program and arguments.
        environment: its own, beside the caller's and MULTIKERNEL_MACHINE, MULTIKERNEL_INSTANCE.
        directory: to run it in; default: the caller's.

    Returns:
        Its exit status (128 and the number of the signal that ended it), and whether it was killed because the
        instance has ended.

    Raises:
        StateError: the instance is not active.
        ResourceError: this process may not use the instance's cpus.
        NotStarted: there is no such command, or it cannot be run.
    """
    process.adopt_orphans()
    with _running(instance) as ended, _waiting_for_signals() as before:
        child = _start(instance, command, environment, directory, before)
        with _killed_with(child, ended) as killed:
            _await(child)
        process.kill_descendants()
    status = child.returncode
    return (128 - status if status < 0 else status), bool(killed) and status == -signal.SIGKILL


@contextlib.contextmanager
def _running(instance: Instance) -> Iterator[int]:
    """The pidfd of the incarnation that runs now."""
    pid, epoch = instance.pid, instance.epoch
    try:
        pidfd = os.pidfd_open(pid) if pid and instance.state == "active" else -1
    except ProcessLookupError:
        pidfd = -1
    try:
        if pidfd < 0 or (instance.pid, instance.epoch) != (pid, epoch):  # else the number is another's by now
            raise refused(instance.name, instance.state, "run a command in")
        yield pidfd
    finally:
        if pidfd >= 0:
            os.close(pidfd)


@contextlib.contextmanager
def _waiting_for_signals() -> Iterator[set[signal.Signals]]:
    """A block in which they wait to be taken by `_await`; its value is the mask that the command is to have."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    try:
        yield {signal.Signals(number) for number in before}
        while signal.sigtimedwait(_PASSED_ON, 0):
            pass  # the command's, which has ended before they could be passed on; its status is what counts
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(
    instance: Instance,
    command: Sequence[str],
    environment: Mapping[str, str],
    directory: str | None,
    mask: set[signal.Signals],
) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def in_child() -> None:
        process.die_with(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    cpus = instance.cpus
    own = {
        **{variable: str(len(cpus)) for variable in process.THREAD_POOLS if variable not in os.environ},
        "MULTIKERNEL_MACHINE": instance.machine.name,
        "MULTIKERNEL_INSTANCE": instance.name,
    }
    allowed = os.sched_getaffinity(0)
    try:
        # A child has the affinity of the thread that forked it, from its first instruction on.
        os.sched_setaffinity(0, cpus)
        if os.sched_getaffinity(0) != set(cpus):
            raise OSError
    except OSError:
        os.sched_setaffinity(0, allowed)
        raise ResourceError(
            f"cannot run a command on cpus {format_cpus(cpus)}, which {instance.name!r} has: this process may use "
            f"{format_cpus(allowed)} only. Run it from where the machine was made.",
            asked=cpus,
            free=tuple(sorted(allowed)),
        ) from None
    try:
        return subprocess.Popen(
            command,
            env={**os.environ, **own, **environment},
            cwd=directory,
            preexec_fn=in_child,  # noqa: PLW1509 - of a process of one thread
        )
    except OSError as error:
        # A directory of PATH that may not be searched is no sign of the command: shells go by what they find, too.
        missing = isinstance(error, FileNotFoundError) or shutil.which(command[0], os.F_OK) is None
        why = os.strerror(errno.ENOENT) if missing else error.strerror
        raise NotStarted(f"{command[0]}: {why}", 127 if missing else 126) from None
    finally:
        os.sched_setaffinity(0, allowed)


@contextlib.contextmanager
def _killed_with(child: subprocess.Popen[bytes], ended: int) -> Iterator[list[bool]]:
    """A block in which the end of the instance is the child's; the list is empty if that did not happen."""
    killed: list[bool] = []
    read, write = os.pipe()

    def watch() -> None:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(read, select.POLLIN)
        if any(fd == ended for fd, _ in poll.poll()):
            killed.append(True)
            child.kill()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield killed
    finally:
        os.close(write)
        watcher.join()
        os.close(read)


def _await(child: subprocess.Popen[bytes]) -> None:
    """Wait for the end of the child, and pass signals on that it has not got itself."""
    while child.poll() is None:
        info = signal.sigwaitinfo({*_PASSED_ON, signal.SIGCHLD})
        if info.si_signo != signal.SIGCHLD and info.si_code != _BY_THE_SYSTEM:
            child.send_signal(info.si_signo)
