"""The links of an instance: asked for, offered, looked at in turn; and the handlers of IPIs that come by them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from multikernel._core import lib
from multikernel.errors import Closed, CorruptLane, MultikernelError, NotOwner, to_wire
from multikernel.ipi.half import LinkHalf
from multikernel.ipi.inbox import check_handler
from multikernel.ipi.peer import HOST_SPEAKS_WITHIN, NEXT_HOST_WITHIN
from multikernel.shm.channel import close_all, expect
from multikernel.units import parse_seconds, parse_size

from .hostside import HostSide
from .loop import Loop

if TYPE_CHECKING:
    from multikernel.ipi.hostlane import HostLaneReceiver
    from multikernel.ipi.link import IpiHandler, Link
    from multikernel.ipi.messages import Message
    from multikernel.shm.channel import Channel
    from multikernel.shm.lane_receiver import LaneReceiver
    from multikernel.shm.pages import MachineView, StatusPage

    from .aio import AsyncLoop
    from .manifest import Manifest
    from .usher import Usher


class Links:
    """All links of an incarnation, and their keeper (`multikernel.ipi.inbox.Keeper`).

    Args:
        manifest: whose they are.
        control: the channel to the host.
        host_lane: by which it rings.
        status: the page where links are counted.
        machine: where the host says what has become of an instance; None: nobody does.
        log: what writes a line to the console, with its level.
        usher: what brings a new host, in a persistent machine.
    """

    def __init__(
        self,
        manifest: Manifest,
        control: Channel,
        host_lane: HostLaneReceiver,
        status: StatusPage,
        machine: MachineView | None,
        log: Callable[[str, int], None],
        usher: Usher | None,
    ) -> None:
        self.host = HostSide(control, host_lane, status, self._pushed, usher)
        self.host.on_new_host = self._meet_new_host
        self.loop = Loop(self.host, status)
        self._id, self._name, self._epoch = manifest.id, manifest.name, manifest.epoch
        self._status, self._machine, self._log = status, machine, log
        self._all: list[Link] = []
        self._by_number: dict[int, Link] = {}
        self._taken_over: list[tuple[Link, int]] = []  # those that `connect` may give out, with their capacity
        self._handlers: dict[int, list[IpiHandler]] = {}
        self._next = 0  # the link whose turn it is
        self.asyncio: AsyncLoop | None = None
        """Of an asynchronous image."""

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._all))  # a handler may close one meanwhile

    def take_next(self, *, copy: bool) -> tuple[Link, Message, Callable[[], None]] | None:
        """The next link's next message, beginning with the link whose turn it is, and what gives its space back."""
        for _ in range(len(self._all)):
            if not self._all:  # a handler closed the last one
                break
            self._next %= len(self._all)
            link = self._all[self._next]
            self._next += 1
            try:
                found = link.take(copy=copy)
            except (Closed, CorruptLane) as error:
                if isinstance(error, CorruptLane):
                    self._log(str(error), 3)
                link.close()
                continue
            if found is not None:
                return link, *found
        return None

    def connect(self, name: str, capacity: int | str, timeout: float) -> Link:
        """A link to another instance. See `Kernel.connect`."""
        self.check_may_wait("await kernel.aconnect(...)")
        rounded, timeout = _power_of_two(parse_size(capacity)), parse_seconds(timeout)
        link = self._take_out(name, rounded)
        if link is not None:
            return link
        half = LinkHalf.create(rounded, self._id, self._epoch)
        try:
            answer = self.host.ask(_request_for(half, name, timeout), half.descriptors(), timeout)
        except BaseException:
            half.close()
            raise
        return self._attach(half, *answer)

    async def aconnect(self, name: str, capacity: int | str, timeout: float) -> Link:  # noqa: ASYNC109 as `connect`
        """The same in asyncio. See `Kernel.aconnect`."""
        rounded, timeout = _power_of_two(parse_size(capacity)), parse_seconds(timeout)
        link = self._take_out(name, rounded)
        if link is not None:
            return link
        half = LinkHalf.create(rounded, self._id, self._epoch)
        try:
            answer = await self.aio().ask(_request_for(half, name, timeout), half.descriptors(), timeout)
        except BaseException:
            half.close()
            raise
        return self._attach(half, *answer)

    def aio(self) -> AsyncLoop:
        """The loop of an asynchronous image; RuntimeError: this image is none."""
        if self.asyncio is None:
            raise RuntimeError(
                "this is for an `async def main(kernel)`, which runs under asyncio; this main is a plain one"
            )
        return self.asyncio

    def check_may_wait(self, instead: str) -> None:
        """Refuse a call that would keep the event loop of an asynchronous image from running. RuntimeError says so."""
        if self.asyncio is not None:
            raise RuntimeError(
                f"this call waits, and nothing else would run meanwhile: in an `async def main` use {instead}"
            )

    def on_ipi(self, vector: int, handler: IpiHandler) -> None:
        """Call `handler(vector, count)` for IPIs of `vector` by any link."""
        check_handler(vector, handler)
        self._handlers.setdefault(vector, []).append(handler)

    def take_over(self) -> None:
        """Go on with the links of the incarnation before, which the host hands over: before the image is entered.

        Raises:
            Closed: the host is gone.
        """
        while True:
            document, fds = self.host.control.receive()
            match document.get("push"):
                case "go":
                    close_all(fds)
                    return
                case "resume":
                    self._resume(document, fds)
                case _:
                    self._pushed(document, fds)

    def leave(self) -> None:
        """The process is about to end. Links are not closed by that: a successor may go on with them."""
        for link in self:
            try:
                link.leave()
            except NotOwner as error:  # main has left a thread behind, or a view
                self._log(f"{link!r} was not left: {error}", 4)

    # --- what links ask of who introduces them

    def take_news(self) -> None:
        """Take what the host has pushed."""
        self.host.serve()

    def tell(self, document: dict[str, Any]) -> None:
        """Say something to the host that it does not answer."""
        with contextlib.suppress(Closed):
            self.host.tell(document)

    def patience(self) -> float:
        """Seconds that the host may take to say what has become of a peer."""
        return HOST_SPEAKS_WITHIN if self.host.has_host else NEXT_HOST_WITHIN

    @contextlib.contextmanager
    def changing(self, link: Link) -> Iterator[None]:
        """A block in which one of the links gets another peer."""
        known = link in self._all
        if known:
            self.loop.remove(link)
        try:
            yield
        finally:
            if known:
                self.loop.add(link)

    # --- what links ask of their keeper

    def interrupt(self, vector: int, count: int) -> None:
        """An IPI came by one of the links: count it and call its handlers."""
        self._status.ipi(vector, count)
        for handler in self._handlers.get(vector, ()):
            handler(vector, count)

    def sleep(self, link: Link, until: int) -> bool:
        """Wait for one link, serving host and timers meanwhile; the others are looked at later. False: time is up."""
        self.check_may_wait("await link.arecv(), arequest(...), `async for`")
        self.host.serve()
        return self.loop.sleep_for(link, until)

    def waits_on(self) -> LaneReceiver:
        """The host lane, for who waits for more than one link by `wait`."""
        self.check_may_wait("tasks that await link.arecv(), or kernel.messages()")
        return self.host.lane.lane

    def next_due(self) -> int:
        """When `serve` has something to do though nothing came: CLOCK_MONOTONIC, ns; negative: never."""
        return self.loop.timers.next_due()

    def serve(self) -> None:
        """What the loop does around each sleep, for `wait`: which sleeps by itself."""
        self.loop.serve()

    def forget(self, link: Link) -> None:
        """One of the links is about to be closed."""
        if link in self._all:
            self._all.remove(link)
            self._by_number.pop(link.peer.number, None)
            self._taken_over = [entry for entry in self._taken_over if entry[0] is not link]
            self.loop.remove(link)
            if self.asyncio is not None:
                self.asyncio.forget(link)

    # --- inside

    def _meet_new_host(self) -> None:
        for link in self:
            link.peer.renewed()
            self.tell({"verb": "facing", "link": link.peer.number, "epoch": link.peer.epoch})

    def _take_out(self, name: str, capacity: int) -> Link | None:
        """A link that was taken over, for who asks for what the incarnation before had asked for."""
        for entry in self._taken_over:
            if (entry[0].peer_name, entry[1]) == (name, capacity):
                self._taken_over.remove(entry)
                return entry[0]
        return None

    def _attach(self, half: LinkHalf, terms: dict[str, Any], fds: list[int]) -> Link:
        try:
            producer, consumer, socket_fd, pidfd = expect(fds, 4, "a link")
        except MultikernelError:
            half.close()
            self.tell({"verb": "unlink", "link": terms["link"]})
            raise
        half.face([producer, consumer], socket_fd, pidfd)
        return self._join(half, terms)

    def _join(self, half: LinkHalf, terms: dict[str, Any]) -> Link:
        link = half.join(
            peer_id=terms["peer"],
            peer_name=terms["peer_name"],
            peer_epoch=terms["peer_epoch"],
            machine=self._machine,
            status=self._status,
            keeper=self,
            number=terms["link"],
            introducer=self,
        )
        try:
            self.loop.add(link)
            self._all.append(link)
            self._by_number[link.peer.number] = link
            if self.asyncio is not None:
                self.asyncio.watch(link)
        except BaseException:
            link.close()
            raise
        return link

    def _resume(self, document: dict[str, Any], fds: list[int]) -> None:
        """Take over one link; what cannot be taken over is lost, and ends nothing else."""
        number, (peer, predecessor, rest) = document["link"], (fds[:2], fds[2:4], fds[4:])
        try:
            if not rest:
                raise ValueError("it came without its descriptors: this process may open no more")
            half = LinkHalf.create(document["capacity"], self._id, self._epoch)
            half.face(peer, rest[0], rest[1] if len(rest) > 1 else -1)
            half.succeed(predecessor, set_aside=document["aside"])
        except (CorruptLane, OSError, ValueError) as error:
            self._log(f"the link to {document['peer_name']} was lost: {error}", 3)
            self.host.control.send({"verb": "abandoned", "link": number, "reason": str(error)[:500]})
            return
        finally:
            close_all(predecessor)
        if half.set_aside is not None:
            self._log(f"a message of {document['peer_name']} was set aside, others died of it: {half.set_aside}", 4)
        self.host.control.send({"verb": "resumed", "link": number, "aside": half.set_aside}, half.descriptors())
        link = self._join(half, document)
        if document["asked"]:
            self._taken_over.append((link, document["capacity"]))
        if len(rest) == 1:
            link.peer.expect()

    def _pushed(self, document: dict[str, Any], fds: list[int]) -> None:
        if document.get("push") == "successor":
            link = self._by_number.get(document["link"])
            if link is None:
                close_all(fds)
            else:
                link.peer.offer(document, fds)
            return
        if document.get("push") != "link":
            close_all(fds)
            raise MultikernelError(f"the host sent what this kernel does not know: {document}")
        try:
            expect(fds, 4, "a link", repr(self._name))
        except MultikernelError as error:
            self._refuse(document, error)
            return
        try:
            half = LinkHalf.create(document["capacity"], self._id, self._epoch)
        except (OSError, ValueError) as error:
            close_all(fds)
            self._refuse(document, error)
            return
        self.host.tell({"verb": "linked", "link": document["link"]}, half.descriptors())
        try:
            self._attach(half, document, fds)
        except (CorruptLane, OSError) as error:  # what another instance brought ends nothing here: it sees Closed
            self._log(f"a link to {document['peer_name']} was refused: {error}", 3)

    def _refuse(self, document: dict[str, Any], error: Exception) -> None:
        failed = error if isinstance(error, MultikernelError) else MultikernelError(f"{self._name}: {error}")
        self.host.tell({"verb": "refused", "link": document["link"], "failed": to_wire(failed)})


def _request_for(half: LinkHalf, name: str, timeout: float) -> dict[str, Any]:
    return {"verb": "connect", "to": name, "capacity": half.capacity, "timeout": timeout}


def _power_of_two(n: int) -> int:
    least: int = max(lib.MK_CAPACITY_MIN, lib.mk_page_size())
    return max(1 << max(n - 1, 0).bit_length(), least)
