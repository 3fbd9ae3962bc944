"""Starting a host: a fresh interpreter with one socket to the program that wants a machine."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from multikernel.client.connection import ask_first
from multikernel.errors import Closed, MultikernelError, Timeout
from multikernel.host import interpreter
from multikernel.shm.channel import Channel, expect

if TYPE_CHECKING:
    from collections.abc import Sequence

STARTS_WITHIN = 60.0
"""Seconds for a host to answer; a loaded system takes long to start two interpreters."""


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
        """Do not wait for it: it goes on. When it has ended some day, `reap_forgotten` takes that."""
        if self._pidfd >= 0:
            _forgotten.add(self.pid)
            reap_forgotten()
            os.close(self._pidfd)
            os.close(self._life)
            self._pidfd = -1


_forgotten: set[int] = set()
"""Hosts that are children of this process and have no other trace here."""


def reap_forgotten(pid: int = 0, within: float = 0.0) -> None:
    """Take the ends of hosts that were forgotten, and have ended since.

    Args:
        pid: of one that has said that it ends, or was killed, and is waited for if it is among them; 0: none.
        within: seconds for that.
    """
    if pid in _forgotten:
        pidfd = os.pidfd_open(pid)  # a child of ours, so it is there, if only as a zombie
        try:
            _readable_within(pidfd, within)
        finally:
            os.close(pidfd)
    for each in list(_forgotten):
        try:
            ended = os.waitpid(each, os.WNOHANG)[0]
        except ChildProcessError:  # the program waits for any child of its own, and got this one
            ended = each
        if ended:
            _forgotten.discard(each)


class Started(NamedTuple):
    """A host that serves."""

    process: HostProcess
    channel: Channel
    """The control connection to it."""
    answer: dict[str, Any]
    """As to `join`, `multikernel.host.verbs`."""
    page: int
    """Descriptor of the machine object."""


def start(
    name: str,
    cpus: Sequence[int],
    memory: int,
    *,
    persistent: bool,
    trusted: Sequence[bytes] = (),
    preload: Sequence[str] = (),
) -> Started:
    """Start a host, and wait until it serves.

    Raises:
        MultikernelError: it did not start, and why; of whatever class the host raised. Nothing is left then.
        Unsupported: there is no interpreter to start it with.
    """
    fields = {"name": name, "cpus": list(cpus), "memory": memory, "persistent": persistent}
    fields["trusted"] = [key.hex() for key in trusted]
    fields["preload"] = list(preload)
    return _start(name, {"verb": "start", "id": 0, **fields})


def revive(name: str) -> Started:
    """Start the next host of a persistent machine whose host and zygote were killed.

    Raises:
        ResourceError: it has one by now; another client was quicker.
        NotFound: nothing of it lives any more.
        MultikernelError, Unsupported: as for `start`.
    """
    return _start(name, {"verb": "revive", "id": 0, "name": name})


def _start(name: str, request: dict[str, Any]) -> Started:
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
        process = HostProcess(interpreter.start("host", [theirs.fileno()], said), life)
        undo.pop_all()
        undo.callback(process.wait, 5.0)
        undo.callback(ours.close)  # comes first, and a host that is about to start ends for it
        theirs.close()
        try:
            answer, fds = ask_first(ours, request, [pidfd, their_life], STARTS_WITHIN)
            (page,) = expect(fds, 1, "the answer of a new host")
        except (Closed, Timeout) as error:
            words = os.pread(said, 4096, max(0, os.fstat(said).st_size - 4096)).decode(errors="replace").rstrip()
            raise MultikernelError(
                f"the host of machine {name!r} did not start. {words or 'It said nothing.'}"
            ) from error
        undo.pop_all()
    return Started(process, ours, answer, page)


def _readable_within(fd: int, timeout: float) -> bool:
    """Whether, within `timeout` seconds, a process has ended (its pidfd), or all have that hold a pipe's other end."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + timeout
    while not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        if time.monotonic() >= deadline:
            return False
    return True
