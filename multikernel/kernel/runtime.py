"""`Kernel`: what an image is handed. The loop that serves every link, IPIs and the host, inside of an instance."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from multikernel._core import failure, ffi, lib
from multikernel.errors import Closed, CorruptLane, MultikernelError, NotOwner, from_wire, to_wire
from multikernel.image.cmdline import Params
from multikernel.ipi.half import LinkHalf
from multikernel.ipi.messages import USER, Message
from multikernel.shm.channel import close_all
from multikernel.shm.wait import wait_set
from multikernel.shm.waiting import deadline
from multikernel.units import parse_size

if TYPE_CHECKING:
    from multikernel.ipi.hostlane import HostLaneReceiver
    from multikernel.ipi.link import IpiHandler, Link
    from multikernel.shm.channel import Channel
    from multikernel.shm.lane_receiver import LaneReceiver
    from multikernel.shm.pages import Console, MachineView, StatusPage

    from .manifest import Manifest


class Kernel:
    """An instance, seen from its image.

    One thread's at a time. Handlers of IPIs and offers of links are served in the loop (`messages`, `wait`) and while
    `request` and `connect` wait: never in the middle of the image's own code.
    """

    def __init__(
        self,
        manifest: Manifest,
        control: Channel,
        host_lane: HostLaneReceiver,
        status: StatusPage,
        console: Console,
        machine: MachineView,
    ) -> None:
        self.id: int = manifest.id
        """1 to 511."""
        self.name: str = manifest.name
        self.epoch: int = manifest.epoch
        """Which incarnation this is, from 1 up."""
        self.machine: str = manifest.machine
        """The machine's name."""
        self.cpus: tuple[int, ...] = manifest.cpus
        self.memory: int = manifest.memory
        """The budget, bytes."""
        self.cmdline: str = manifest.cmdline
        """What `load` was given for it."""
        self.params: Params = Params(manifest.cmdline)
        """The same as parameters, by name: `multikernel.image.cmdline`."""
        self._control = control
        self._host = host_lane
        self._status = status
        self._console = console
        self._view = machine
        self._links: list[Link] = []
        self._handlers: dict[int, list[IpiHandler]] = {}
        self._halt = False
        self._ready = False
        self._request = 0
        self._next = 0  # the link whose turn it is
        host_lane.count_waits_in(status.own())
        self._set = wait_set([host_lane.end])
        self._pairs: dict[Link, Any] = {}  # a wait set of a link and the host lane, for waits on one link

    # --- messages

    def messages(self, *, copy: bool = True, timeout: float | None = None) -> Iterator[Message]:
        """Every link's messages, in turn, until the host asks for a halt.

        A message counts as dealt with when the next one is asked for (by this loop, or by a `recv` or `request` on the
        same link): should this incarnation die before, it is still there for the next.

        Args:
            copy: False: payloads are read-only views of the ring, valid until the next message is asked for; until then
                their link receives nothing else (NotOwner), but sends.
            timeout: seconds without any message after which the iteration ends; None: never.

        Raises:
            BufferError: with copy=False, something made from a payload is alive when the next message is asked for.
        """
        until = deadline(timeout)
        while True:
            taken = self._take_next(copy=copy)
            if taken is not None:
                link, message, give_back = taken
                try:
                    yield message
                except BaseException:  # the loop was left: a view ends, a copy is dealt with when more is asked for
                    if not copy:
                        give_back()
                    raise
                del link, message
                give_back()
                until = deadline(timeout)
                self._serve_host()
                if self._halt:
                    return
                continue
            self._serve_host()
            if self._halt or not self._sleep(self._set, until):
                return

    def _take_next(self, *, copy: bool) -> tuple[Link, Message, Callable[[], None]] | None:
        """The next link's next message, beginning with the link whose turn it is."""
        for _ in range(len(self._links)):
            if not self._links:  # a handler closed the last one
                break
            self._next %= len(self._links)
            link = self._links[self._next]
            self._next += 1
            try:
                found = link.take(copy=copy)
            except (Closed, CorruptLane) as error:
                if isinstance(error, CorruptLane):
                    self.log(f"{error}\n", level=3)
                link.close()
                continue
            if found is not None:
                return link, *found
        return None

    def reply(self, message: Message, payload: Any, *, type: int = USER, subtype: int = 0) -> None:  # noqa: A002
        """Answer a message: the same as `message.reply`."""
        message.reply(payload, type=type, subtype=subtype)

    # --- interrupts

    def on_ipi(self, vector: int) -> Callable[[IpiHandler], IpiHandler]:
        """Decorate a handler for IPIs of `vector` by any link: called as `handler(vector, count)`.

        IPIs coalesce: `count` says how often the vector was raised since the last call. Handlers run in the loop,
        between messages, lowest vector first.
        """
        if not 0 <= vector < lib.MK_VECTORS:
            raise ValueError(f"vector {vector}: there are 0 to {lib.MK_VECTORS - 1}")

        def register(handler: IpiHandler) -> IpiHandler:
            self._handlers.setdefault(vector, []).append(handler)
            return handler

        return register

    def interrupt(self, vector: int, count: int) -> None:
        """An IPI came by one of the links: count it and call its handlers."""
        self._status.ipi(vector, count)
        for handler in self._handlers.get(vector, ()):
            handler(vector, count)

    # --- links

    def connect(self, name: str, *, capacity: int | str = "1M", timeout: float = 30.0) -> Link:
        """A link to another instance of this machine. Its messages also come out of `messages`.

        Args:
            name: of an active instance.
            capacity: bytes each way, rounded up to a power of two.
            timeout: seconds for the other one to answer; it answers in its loop.

        Raises:
            NotFound, StateError: there is none, or it is not active.
            TimeoutError: it did not answer.
        """
        half = LinkHalf.create(_power_of_two(parse_size(capacity)), self.id, self.epoch)
        try:
            answer, fds = self._ask_host(
                {"verb": "connect", "to": name, "capacity": half.capacity, "timeout": timeout},
                half.descriptors(),
                timeout,
            )
        except BaseException:
            half.close()
            raise
        return self._attach(half, answer, fds)

    def _attach(self, half: LinkHalf, terms: dict[str, Any], fds: list[int]) -> Link:
        if len(fds) != 4:
            half.close()
            close_all(fds)
            raise MultikernelError(f"the host sent {len(fds)} descriptors for a link, not 4")
        producer, consumer, socket_fd, pidfd = fds
        link = half.attach(
            [producer, consumer],
            socket_fd=socket_fd,
            pidfd=pidfd,
            peer_id=terms["peer"],
            peer_name=terms["peer_name"],
            peer_epoch=terms["peer_epoch"],
            machine=self._view,
            status=self._status,
            keeper=self,
        )
        code = lib.mk_wait_set_add(self._set, link.receiving_end)
        if code:
            link.close()
            raise failure(code, "waiting for a link")
        self._links.append(link)
        return link

    def forget(self, link: Link) -> None:
        """One of the links is about to be closed."""
        if link in self._links:
            self._links.remove(link)
            lib.mk_wait_set_remove(self._set, link.receiving_end)
            self._pairs.pop(link, None)

    # --- the host

    def ready(self) -> None:
        """Say that this instance can serve now, as `boot(until="ready")` waits for. Else the first wait says it."""
        if not self._ready:
            self._ready = True
            self._status.phase("ready")
            self._control.send({"verb": "ready"})

    @property
    def halting(self) -> bool:
        """Whether the host has asked for a halt: `messages` ends then, and `main` should return."""
        self._serve_host()
        return self._halt

    def log(self, text: str, level: int = 6) -> None:
        """Write to the console. level: syslog's, 3 error, 4 warning, 6 info, 7 debug."""
        self._console.write(text if text.endswith("\n") else f"{text}\n", level)

    def _ask_host(self, document: dict[str, Any], fds: list[int], timeout: float) -> tuple[dict[str, Any], list[int]]:
        """A request over the control channel. What the host sends meanwhile is served.

        Two that connect to each other would wait for each other otherwise.
        """
        self._request += 1
        self._control.send(document | {"id": self._request}, fds)
        until = deadline(timeout + 5)  # the host says it first
        while True:
            received = self._control.receive(timeout=max(0.001, (until - time.monotonic_ns()) / 1e9))
            if received is None:
                continue
            answer, got = received
            if answer.get("answer") != self._request:
                self._serve_document(answer, got)
                continue
            if "failed" in answer:
                close_all(got)
                raise from_wire(answer["failed"])
            return answer["ok"], got

    def _serve_host(self) -> None:
        """What the host wants; a look at a page when it wants nothing."""
        if not self._host.ready:
            return
        try:
            halt, look = self._host.take()
        except Closed:
            sys.exit(1)  # the host is gone: this machine ends
        if halt and not self._halt:
            self._halt = True
            self._status.phase("ending")
        while look and (received := self._control.receive(timeout=0)) is not None:
            self._serve_document(*received)

    def _serve_document(self, document: dict[str, Any], fds: list[int]) -> None:
        if document.get("answer") is not None:  # to a request that was given up
            close_all(fds)
            return
        if document.get("push") != "link":
            close_all(fds)
            raise MultikernelError(f"the host sent what this kernel does not know: {document}")
        try:
            half = LinkHalf.create(document["capacity"], self.id, self.epoch)
        except (OSError, ValueError) as error:
            failed = error if isinstance(error, MultikernelError) else MultikernelError(f"{self.name}: {error}")
            close_all(fds)
            self._control.send({"verb": "refused", "link": document["link"], "failed": to_wire(failed)})
            return
        self._control.send({"verb": "linked", "link": document["link"]}, half.descriptors())
        try:
            self._attach(half, document, fds)
        except (CorruptLane, OSError) as error:  # what another instance brought ends nothing here: it sees Closed
            self.log(f"a link to {document['peer_name']} was refused: {error}", level=3)

    def sleep(self, link: Link, until: int) -> bool:
        """Wait for one link, serving the host meanwhile; the others are looked at later. False: the time is up."""
        self._serve_host()
        pair = self._pairs.get(link)
        if pair is None:
            pair = self._pairs[link] = wait_set([self._host.end, link.receiving_end])
        return self._sleep(pair, until)

    def waits_on(self) -> LaneReceiver:
        """The host lane, for who waits for more than one link by `wait`."""
        return self._host.lane

    def serve(self) -> None:
        """What the loop does around each sleep, for `wait`: which sleeps by itself."""
        self.ready()
        self._serve_host()
        self._status.beat()

    def _sleep(self, ends: Any, until: int) -> bool:
        self.ready()
        self._status.beat()
        code = lib.mk_py_set_wait(ends, ffi.NULL, 0, ffi.NULL, False, until)
        while code == -errno.EINTR:
            code = lib.mk_py_set_wait(ends, ffi.NULL, 0, ffi.NULL, False, until)
        self._status.beat()
        if code in (-errno.EBUSY, -errno.ECHILD):
            raise NotOwner(
                "this kernel is in use by another thread, or belongs to the process that this was forked from"
            )
        if code < 0 and code != -errno.ETIMEDOUT:
            raise failure(code, "waiting for messages")
        return bool(code > 0)

    def close(self) -> None:
        """Close all links. Called when `main` has returned."""
        for link in list(self._links):
            try:
                link.close()
            except NotOwner as error:  # main has left a thread behind, or a view
                self.log(f"{link!r} was not closed: {error}", level=4)


def _power_of_two(n: int) -> int:
    least: int = max(lib.MK_CAPACITY_MIN, lib.mk_page_size())
    return max(1 << max(n - 1, 0).bit_length(), least)
