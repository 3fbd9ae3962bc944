"""What brings an instance of a persistent machine to its next host, when its own was killed.

A thread of the instance, since that may be busy for as long as it likes, or asleep on its links, and is not to be
disturbed for this. It sleeps on the control channel until that is at its end, without ever waking before. Then it tries
the control socket of the machine until there is a host that listens, says who this instance is, and gets what the
instance was born with anew: a control channel, a host lane, the machine's page. The loop takes the lane when it looks
next; what is asleep there has been woken by the end of the old one, once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

from multikernel.errors import Closed, MultikernelError
from multikernel.ipi.hostlane import HostLane, HostLaneReceiver
from multikernel.kernel import protocol
from multikernel.shm.channel import MAX_DESCRIPTORS, Channel, close_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from multikernel.kernel.manifest import Manifest
    from multikernel.shm.pages import MachineView

_FIRST_PAUSE, _PAUSE, _LONGEST_PAUSE = 0.005, 0.05, 1.0  # seconds between two tries to find a host: at first, until
_SOON = 10.0  # seconds, within which one is to be expected, and then
_ADOPTED = 4  # descriptors of an answer to `adopt`


class Usher:
    """The thread, and what it has brought.

    Args:
        manifest: who the instance is.
        control: its control channel, which stays the loop's.
        view: its view of the machine; gets the next host's page.
        instances: descriptor of the directory `instances`, which this object owns.
        brings: descriptors that the next host gets with `hello`, beside the host lane's: status, console, console pipe.
        others: descriptors by name, for a host that does not have them: the image, and what it was given besides.
        log: writes to the console.
    """

    def __init__(
        self,
        manifest: Manifest,
        control: Channel,
        view: MachineView,
        instances: int,
        brings: tuple[int, int, int],
        others: dict[str, int],
        log: Callable[[str], None],
    ) -> None:
        self.lane: HostLaneReceiver | None = None
        """The lane of the next host, until the loop takes it, and the control channel with it (`take`)."""
        self.memories: dict[str, int] = {}
        """Descriptors of named memories, for a host that does not have them."""
        self._manifest = manifest
        self._control, self._view, self._log = control, view, log
        self._instances, self._brings, self._others = instances, brings, others
        self._next: Channel | None = None  # with `lane`
        self._lock = threading.Lock()
        self._bell: HostLane | None = None  # wakes the loop, while it has no host
        self._watched = -1
        self._hosted = threading.Event()
        self._hosted.set()

    def start(self) -> None:
        """Start the thread. It handles no signal: those are the instance's own."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            threading.Thread(target=self._run, name="usher", daemon=True).start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def take(self) -> tuple[HostLaneReceiver, Channel | None]:
        """The lane to wait on from now on, and the control channel: the next host's.

        While there is none it is a lane that this thread rings, and no channel.
        """
        with self._lock:
            lane, self.lane = self.lane, None
            control, self._next = self._next, None
            if self._bell is not None:
                self._bell.close()
                self._bell = None
            if lane is not None:
                return lane, control
            ours, theirs = (end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))
            bell = HostLane.create(self._manifest.id, self._manifest.epoch)
            lane = HostLaneReceiver.create(self._manifest.id, self._manifest.epoch)
            consumer, producer = os.dup(lane.descriptors()[0]), os.dup(bell.descriptors()[0])
            lane.attach(producer, theirs)
            bell.attach(consumer, ours)
            self._bell = bell
            return lane, None

    def wait(self, timeout: float) -> bool:
        """Wait until there is a host; whether there is one within `timeout` seconds."""
        return self._hosted.wait(timeout)

    def _run(self) -> None:
        watched = os.dup(self._control.fileno())  # of our own: the loop may close its channel meanwhile
        while True:
            _await_end(watched)
            os.close(watched)
            self._hosted.clear()
            pause, begin = _FIRST_PAUSE, time.monotonic()
            while not self._find():
                time.sleep(pause)  # noqa: TID251 - nothing tells when a host listens; only while there is none
                pause = min(2 * pause, _PAUSE if time.monotonic() < begin + _SOON else _LONGEST_PAUSE)
            watched = self._watched

    def _find(self) -> bool:
        """Look for a host, and go to it. Ends the process when the machine is gone, or a host does not know us."""
        if not os.fstat(self._instances).st_nlink:
            self._end("its machine is gone")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            sock.connect(f"/proc/self/fd/{self._instances}/../control")
        except OSError:  # nobody listens, or too many want to be let in
            sock.close()
            return False
        with Channel(sock) as channel:
            try:
                self._go(channel)
            except (Closed, OSError):  # that host was killed, too; or the system has no descriptors for this just now
                return False
            except MultikernelError as error:
                self._end(str(error))
        return True

    def _go(self, channel: Channel) -> None:
        manifest = self._manifest
        channel.send(
            {
                "verb": "adopt",
                "id": 0,
                "protocol": protocol.PROTOCOL,
                "instance": manifest.id,
                "epoch": manifest.epoch,
                "names": list(self._others),
            },
            list(self._others.values()),
        )
        answer, fds = channel.receive()
        if "ok" not in answer or len(fds) != _ADOPTED:
            close_all(fds)
            raise MultikernelError(str(answer.get("failed", {}).get("message", "the host does not take it")))
        control, machine, producer, bell = fds
        with contextlib.ExitStack() as undo:  # that host may be killed, too
            undo.callback(close_all, [producer, bell])
            following = Channel(socket.socket(fileno=control))
            undo.callback(following.close)
            try:
                self._view.renew(machine)
            finally:
                os.close(machine)
            lane = HostLaneReceiver.create(manifest.id, manifest.epoch)
            undo.callback(lane.close)
            status, console, pipe = self._brings
            following.send({"verb": "hello", "epoch": manifest.epoch}, [status, console, *lane.descriptors(), pipe])
            for some in _by_sixteen(dict(self.memories)):
                following.send({"verb": "memories", "names": list(some)}, list(some.values()))
            undo.pop_all()
        lane.attach(producer, bell)
        self._watched = os.dup(following.fileno())
        with self._lock:
            if self.lane is not None and self._next is not None:  # of a host that was killed before the loop had looked
                self.lane.close()
                self._next.close()
            self.lane, self._next = lane, following
            if self._bell is not None:
                self._bell.ring()
        self._hosted.set()

    def _end(self, why: str) -> None:
        """It belongs to nobody any more."""
        with contextlib.suppress(MultikernelError):
            self._log(f"this instance has lost its host, and ends: {why}")
        os._exit(1)


def _by_sixteen(fds: dict[str, int]) -> Iterator[dict[str, int]]:
    """As many at a time as travel with one document."""
    items = iter(fds.items())
    while some := dict(itertools.islice(items, MAX_DESCRIPTORS)):
        yield some


def _await_end(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # the end of file is told unasked
    poll.poll()
