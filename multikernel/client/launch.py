"""Starting a host: a fresh interpreter with one socket to the program that wants a machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import multikernel
from multikernel.client.connection import ask_first
from multikernel.errors import Closed, MultikernelError, Timeout, Unsupported
from multikernel.shm.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Sequence

STARTS_WITHIN = 60.0
"""Seconds for a host to answer; a loaded system takes long to start two interpreters."""

_DESCRIPTOR = 3  # of the host's end of the channel, in the host

# The package is the very one that this program has, wherever it came from; nothing else of the program's import path
# goes before what an interpreter of its own would have: its own modules must not get into the host.
_BOOTSTRAP = """
import sys
from importlib import util
package, descriptor, *path = sys.argv[1:]
sys.path += [each for each in path if each not in sys.path]
spec = util.spec_from_file_location("multikernel", package + "/__init__.py", submodule_search_locations=[package])
module = util.module_from_spec(spec)
sys.modules["multikernel"] = module
spec.loader.exec_module(module)
from multikernel.host.__main__ import main
sys.exit(main(int(descriptor)))
"""


class HostProcess:
    """The process of a host that this program has started, and whose parent it is.

    Args:
        pid: of that process.
        life: the read end of a pipe whose other end host and zygote hold; owned from here on.
    """

    def __init__(self, pid: int, life: int) -> None:
        self.pid = pid
        self._life = life
        self._pidfd = os.pidfd_open(pid)

    def wait(self, timeout: float) -> None:
        """Wait for its end, and reap it; kill it if it takes more than `timeout` seconds. Waiting twice is fine.

        Of a host that was killed the zygote clears up: that is waited for as well, and as long.
        """
        if self._pidfd < 0:
            return
        if not _readable_within(self._pidfd, timeout):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # the program waits for any child of its own, and got this one
            os.waitpid(self.pid, 0)
        _readable_within(self._life, timeout)
        self.forget()

    def forget(self) -> None:
        """Do not wait for it: it goes on, or is another process's child."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            os.close(self._life)
            self._pidfd = -1


class Started(NamedTuple):
    """A host that serves."""

    process: HostProcess
    channel: Channel
    """The control connection to it."""
    answer: dict[str, Any]
    """As to `join`, `multikernel.host.verbs`."""
    page: int
    """Descriptor of the machine object."""


def start(name: str, cpus: Sequence[int], memory: int, *, persistent: bool, trusted: Sequence[bytes] = ()) -> Started:
    """Start a host, and wait until it serves.

    Raises:
        MultikernelError: it did not start, and why; of whatever class the host raised. Nothing is left then.
        Unsupported: there is no interpreter to start it with.
    """
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as passed:
        ours, theirs = Channel.pair()
        passed.callback(theirs.close)
        undo.callback(ours.close)
        life, their_life = os.pipe()
        passed.callback(os.close, their_life)
        undo.callback(os.close, life)
        pidfd = os.pidfd_open(os.getpid())
        passed.callback(os.close, pidfd)
        said = os.memfd_create("host:start")
        passed.callback(os.close, said)
        process = HostProcess(_spawn(theirs.fileno(), said), life)
        undo.pop_all()
        undo.callback(process.wait, 5.0)
        undo.callback(ours.close)  # comes first, and a host that is about to start ends for it
        theirs.close()
        request = {
            "verb": "start",
            "id": 0,
            "name": name,
            "cpus": list(cpus),
            "memory": memory,
            "persistent": persistent,
            "trusted": [key.hex() for key in trusted],
        }
        try:
            answer, fds = ask_first(ours, request, [pidfd, their_life], STARTS_WITHIN)
        except (Closed, Timeout) as error:
            words = os.pread(said, 4096, max(0, os.fstat(said).st_size - 4096)).decode(errors="replace").rstrip()
            raise MultikernelError(
                f"the host of machine {name!r} did not start. {words or 'It said nothing.'}"
            ) from error
        undo.pop_all()
    return Started(process, ours, answer, fds[0])


def _spawn(descriptor: int, said: int) -> int:
    """Start the interpreter, with one end of a channel and nothing else of ours; it prints into `said`. Its pid."""
    if not sys.executable:
        raise Unsupported("this program cannot start a host: it does not know its Python interpreter (sys.executable)")
    package = os.path.dirname(os.path.abspath(multikernel.__file__))
    path = [os.path.abspath(each) for each in sys.path if each]
    with contextlib.ExitStack() as opened:
        null = os.open(os.devnull, os.O_RDONLY)
        opened.callback(os.close, null)
        files = []
        for source, target in ((null, 0), (said, 1), (said, 2), (descriptor, _DESCRIPTOR)):
            # From copies out of the way, since each target may be another one's source.
            copy = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _DESCRIPTOR + 1)
            opened.callback(os.close, copy)
            files.append((os.POSIX_SPAWN_DUP2, copy, target))
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-c", _BOOTSTRAP, package, str(_DESCRIPTOR), *path],
            os.environ,
            file_actions=files,
            setsid=True,  # so that a Ctrl-C in a terminal is not its
            setsigmask=[],
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )


def _readable_within(fd: int, timeout: float) -> bool:
    """Whether, within `timeout` seconds, a process has ended (its pidfd), or all have that hold a pipe's other end."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + timeout
    while not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        if time.monotonic() >= deadline:
            return False
    return True
