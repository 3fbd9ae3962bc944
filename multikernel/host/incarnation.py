"""One run of an instance, as its host holds it: process, control channel, host lane, pages, and how far it has come."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Any, Literal

from multikernel.errors import CorruptLane, MultikernelError, StateError
from multikernel.host import crash_sink
from multikernel.host.ends import Asked, Facts
from multikernel.host.inbound import Inbound
from multikernel.host.input import Input
from multikernel.host.party import Party
from multikernel.host.wire import Wire
from multikernel.ipi.hostlane import HostLane
from multikernel.kernel.protocol import LONGEST_TRACEBACK, Descriptors, tail
from multikernel.shm import objects
from multikernel.shm.channel import Channel, Document, close_all, expect
from multikernel.shm.pages import ConsoleView, End

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from multikernel.host.oom import OomKills

Until = Literal["active", "ready"]

CONSOLE_TAIL = 4000
"""Characters of the console that a `BootError` carries."""

_ABORTS_WITHIN = 1.0  # seconds to write the stacks, and a core file if it may
_PIPE = 65536  # bytes; what a pipe holds


class Incarnation:
    """A process that boots, runs and ends as an instance. Trusts nothing that it says.

    Args:
        instance_id: of the instance.
        epoch: which incarnation this is.
        until: how far it has to come for its boot to be done.
        on_hello: called once its pages have come, and are what they should be.
        on_active: called when it says that `main` is about to be entered.
        on_document: called with each other document, and its descriptors, which are the callee's to close.

    Raises:
        OSError: no descriptors, or no memory. Nothing is left then.
    """

    def __init__(
        self,
        instance_id: int,
        epoch: int,
        until: Until,
        *,
        on_hello: Callable[[], None],
        on_active: Callable[[], None],
        on_document: Callable[[Document, list[int]], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.instance_id = instance_id
        self.epoch = epoch
        self.pid = 0
        self.pages: list[int] = []
        """Read-only descriptors of its status page and console, once it has sent them."""
        self.asked: Asked = ""
        self.forced = False
        self.late = False
        self.killed = False
        """Whether the host has killed it, for whatever reason."""
        self.crashed = False
        """Whether it is the crash image, in the place of one that has died."""
        self.takes_over = False
        """Whether links are handed over to it, and it waits for that before its image is entered."""
        self.by_policy = False
        """Whether nobody has asked for its boot: it follows another one that has ended."""
        self.busy = 0
        """Requests of it that are being worked on."""
        self.inbound = Inbound()
        """The lanes that it receives by."""
        self.hung_for = 0.0
        """Seconds without a sign of life, for which it was killed."""
        self.fatal = ""
        """What stands behind its console, if a signal ended it."""
        self.threads = ""
        """What its threads were doing when it died, by faulthandler."""
        self.unseen = False
        """Whether it ended while there was nobody who could be told of how."""
        self.unread = ""
        """What was still in its console's pipe when it died."""
        self.spawned: asyncio.Future[None] = loop.create_future()
        self.reached: dict[Until, asyncio.Future[None]] = {
            "active": loop.create_future(),
            "ready": loop.create_future(),
        }
        self.over: asyncio.Future[End] = loop.create_future()
        """Done when the process is gone and the new state is published."""
        self._until = until
        self._on_hello, self._on_active, self._on_document = on_hello, on_active, on_document
        self._reason, self._traceback = "", ""
        self._early: list[tuple[Document, list[int]]] = []  # what it said before the zygote had said that it is there
        self.pidfd = -1
        """Of its process, from its spawn to its end; stays ours."""
        self.came: asyncio.Future[None] = loop.create_future()
        """Done when it has come to this host, if it was another's."""
        self._halting = False
        self._active_ns = 0
        self._adopted = False
        with contextlib.ExitStack() as undo:
            self._lane = HostLane.create(instance_id, epoch)
            undo.callback(self._lane.close)
            self._bell, self._its_bell = _pair(undo)
            self._console, self._its_console = os.pipe()
            undo.callback(close_all, [self._console, self._its_console])
            self._crash = crash_sink.make(str(instance_id))
            undo.callback(os.close, self._crash)
            self.input = Input()
            undo.callback(self.input.close)
            ours, theirs = Channel.pair()
            self._control = theirs
            self.wire = Wire(ours, self._receive, self._lost)
            undo.pop_all()

    @property
    def booted(self) -> bool:
        """Whether it has come as far as its boot was to wait for."""
        return self.reached[self._until].done()

    @property
    def was_active(self) -> bool:
        """Whether its `main` was entered."""
        return self._active_ns > 0

    def seconds_active(self) -> float:
        """How long ago it became active; 0: it did not."""
        return (time.monotonic_ns() - self._active_ns) / 1e9 if self._active_ns else 0.0

    def take_over(self, pid: int, pidfd: int, pages: list[int], crash: int, since_ns: int) -> None:
        """It runs already, and was the last host's: what is its own here waits for it to come for it (`adopt`).

        Args:
            pid: of its process.
            pidfd: likewise; owned from here on, as those below.
            pages: its status page and console; none: it will bring them.
            crash: what it writes its last words to; -1: it may bring that.
            since_ns: when it became active.
        """
        self._adopted, self._active_ns = True, since_ns
        self.started(pid, pidfd)
        self.pages = pages
        for future in self.reached.values():
            future.set_result(None)
        self.input.close()  # for `Input.resume`
        # Its console's pipe was made by another host: it brings that, too.
        for name in ("_console", "_its_console"):
            self._close_descriptor(name)
        if crash >= 0:
            self.take_crash(crash)

    def take_crash(self, crash: int) -> None:
        """What it writes its last words to was made by another host: a descriptor of that, owned from here on."""
        self._close_descriptor("_crash")
        self._crash = crash

    def wait_no_longer(self) -> None:
        """It has come, or is not to be waited for any longer."""
        if not self.came.done():
            self.came.set_result(None)

    def adopt(self, machine: int) -> list[int]:
        """What it gets in place of what it was born with: control channel, machine object, host lane, bell.

        Raises:
            StateError: it has them, or was never another host's.
            OSError: no descriptors.
        """
        if not self._adopted or self._its_bell < 0:
            raise StateError(f"instance {self.instance_id} has a host already, and that is this one")
        with contextlib.ExitStack() as undo:
            fds = []
            for fd in (self._control.fileno(), machine, *self._lane.descriptors(), self._its_bell):
                fds.append(os.dup(fd))
                undo.callback(os.close, fds[-1])
            undo.pop_all()
        self.handed_over()
        return fds

    def party(self, name: str) -> Party:
        """As who it is linked to others. name: the instance's."""
        return Party(self.instance_id, name, self.epoch, self.pidfd, self.push, self.pid, self.inbound)

    def descriptors(self, image: int, machine: int) -> Descriptors:
        """What the new process is given; all stay ours, for `handed_over` or `close`."""
        return Descriptors(
            control=self._control.fileno(),
            image=image,
            machine=machine,
            lane=self._lane.descriptors()[0],
            bell=self._its_bell,
            console_read=self._console,
            console_write=self._its_console,
        )

    def extras(self) -> dict[str, int]:
        """What it is given besides, by name; these stay ours, too."""
        return {"crash": self._crash, **self.input.extras()}

    def kept(self) -> dict[str, int]:
        """Those of them that the next host needs, if this one is killed."""
        return {"crash": self._crash, **self.input.kept()}

    def handed_over(self) -> None:
        """The zygote has its copies: close those that only the instance should have, so that their ends are seen."""
        self._control.close()
        self.input.handed_over()
        for name in ("_its_bell", "_its_console"):
            self._close_descriptor(name)

    def started(self, pid: int, pidfd: int) -> None:
        """The zygote has forked it."""
        self.pid, self.pidfd = pid, pidfd
        if not self.spawned.done():
            self.spawned.set_result(None)
        early, self._early = self._early, []
        for document, fds in early:
            self._receive(document, fds)
        if self.killed:  # before there was anything to kill it by: it was quicker to misbehave than the zygote to tell
            self.kill()

    def push(self, document: Document, fds: Sequence[int] = ()) -> None:
        """Put a document on its control channel, and wake it."""
        self.wire.send(document, fds)
        self._lane.ring()

    def is_parked(self) -> bool:
        """Whether it sleeps until something comes, by its own account."""
        return self._lane.is_parked()

    def probe(self) -> None:
        """Ask its loop to look."""
        self._lane.ring()

    def abort(self) -> None:
        """Have it say what all its threads are doing, and end of that; also if it is stopped. Killed if it does not."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGABRT)
                signal.pidfd_send_signal(self.pidfd, signal.SIGCONT)
            last = asyncio.get_running_loop().call_later(_ABORTS_WITHIN, self.kill)
            self.over.add_done_callback(lambda _: last.cancel())

    def shut_down(self) -> None:
        """Ask it to finish. Asking twice wakes it twice, and is one request."""
        if not self._halting:
            self._halting = True
            self._lane.shutdown()
        self._lane.ring()

    def kill(self) -> None:
        """End it at once. The end is told later, by the zygote."""
        self.killed = True
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def end(self, why: str) -> None:
        """End it at once, for a reason that is kept as its traceback."""
        self._traceback = f"ended by the host: {why}\n"
        self.kill()

    def facts(self, code: int, number: int, kills: OomKills) -> Facts:
        """What is known of its end, by `number` (a signal) or with exit status `code`; takes its last words first."""
        self.wire.take_rest()
        self.unread = self._unread_output()
        self.threads = crash_sink.read(self._crash)
        if number:  # what any Python program prints of a fatal signal
            self.fatal = self.threads
        return Facts(
            code=code,
            signal=number,
            asked=self.asked,
            forced=self.forced,
            late=self.late,
            hung=self.hung_for > 0,
            out_of_memory=number == signal.SIGKILL and not self.killed and kills.take(),
            booted=self.booted,
            reason=self._reason,
            traceback=self._traceback,
            unseen=self.unseen,
        )

    def printed(self, limit: int) -> str:
        """The end of what it printed itself, up to so many characters."""
        return tail((self._look_at_console(ConsoleView.text) or "") + self.unread, limit)

    def output(self) -> str:
        """The end of what stands on its console for who looks now: a fatal signal's words, too."""
        return tail(self.printed(CONSOLE_TAIL) + self.fatal, CONSOLE_TAIL)

    def close(self) -> None:
        """Close everything but the pages: who looks later sees them still."""
        self.handed_over()
        self.wire.close()
        early, self._early = self._early, []
        for _, fds in early:  # the zygote is gone, and has never said of whom they are
            close_all(fds)
        self._lane.close()
        self.inbound.close()
        self.input.close()
        for name in ("_bell", "_console", "_crash", "pidfd"):
            self._close_descriptor(name)

    def close_pages(self) -> None:
        """Close the pages, too: a newer incarnation has its own, or the instance is deleted."""
        close_all(self.pages)
        self.pages = []

    def _receive(self, document: Document, fds: list[int]) -> None:
        if self.pidfd < 0:  # a native one may be that quick; who is linked to it is given its pidfd
            self._early.append((document, fds))
            return
        verb = document.get("verb")
        if verb == "hello" and self._adopted and self._console < 0 and len(fds) == 4:
            self._console = fds.pop()
            self._hello(fds)
        elif verb == "hello" and not self.pages and len(fds) == 3:
            self._hello(fds)
        elif verb == "hello" and not self.pages:
            try:
                expect(fds, 3, "the first word of an instance", "the host")
            except MultikernelError as error:
                self._misbehaved(error)
        elif verb == "phase" and document.get("phase") == "active" and self.pages:
            close_all(fds)
            self._reach("active")
        elif verb == "ready" and self.pages:
            close_all(fds)
            self._reach("active")
            self._reach("ready")
        elif verb == "ended":
            close_all(fds)
            self._reason = _text(document.get("reason"), 31)
            self._traceback = _text(document.get("traceback"), LONGEST_TRACEBACK + 8)
        else:
            self._on_document(document, fds)

    def _hello(self, fds: list[int]) -> None:
        status, console, consumer = fds
        bell, self._bell = self._bell, -1
        try:
            objects.check(status, kind="status", owner_id=self.instance_id)
            objects.check(console, kind="console", owner_id=self.instance_id)
            objects.check(consumer, kind="consumer", owner_id=self.instance_id)
        except (CorruptLane, OSError) as error:
            close_all([*fds, bell])
            self._misbehaved(error)
            return
        known, self.pages = self.pages, [status, console]
        close_all(known)  # of one that was the last host's: the same pages
        try:
            self._lane.attach(consumer, bell)
        except (CorruptLane, OSError) as error:
            self._misbehaved(error)
            return
        self.wait_no_longer()
        if self._adopted:  # there may be something for it already
            if self._halting:
                self._lane.shutdown()
            self._lane.ring()
        self._on_hello()

    def _unread_output(self) -> str:
        if self._console < 0:  # it was the last host's, and never came
            return ""
        # Nobody else reads the pipe now. What is there was written before, so this does not wait.
        os.set_blocking(self._console, False)
        try:
            unread = os.read(self._console, _PIPE)
        except BlockingIOError:
            return ""
        new = self._look_at_console(lambda view: view.new_in(unread))
        return unread.decode(errors="replace") if new is None else new

    def _look_at_console(self, look: Callable[[ConsoleView], str]) -> str | None:
        """What `look` makes of its console; None if there is none, or it is not to be read."""
        if self.pages:
            with contextlib.suppress(MultikernelError, OSError):
                view = ConsoleView(self.pages[1])
                try:
                    return look(view)
                finally:
                    view.close()
        return None

    def _reach(self, phase: Until) -> None:
        future = self.reached[phase]
        if not future.done():
            future.set_result(None)
            if phase == "active":
                self._active_ns = time.monotonic_ns()
                self._on_active()

    def _lost(self, reason: Exception | None) -> None:
        if reason is not None:  # else its control channel is at its end: it is ending
            self._misbehaved(reason)

    def _misbehaved(self, error: Exception) -> None:
        """It does what no instance does."""
        self.end(str(error))

    def _close_descriptor(self, name: str) -> None:
        fd = getattr(self, name)
        setattr(self, name, -1)
        if fd >= 0:
            os.close(fd)


def _pair(undo: contextlib.ExitStack) -> tuple[int, int]:
    one, other = (end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))
    undo.callback(close_all, [one, other])
    return one, other


def _text(value: Any, limit: int) -> str:
    return value[:limit] if isinstance(value, str) else ""
