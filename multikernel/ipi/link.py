"""`Link`: a pair of lanes between two parties of a machine, with messages, requests and IPIs."""

from __future__ import annotations

import errno
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from multikernel._core import ffi
from multikernel.errors import Closed, CorruptLane, MultikernelError, NotOwner, Timeout
from multikernel.shm.lane import PeerChanged
from multikernel.shm.records import Counters
from multikernel.shm.views import View
from multikernel.shm.waiting import AT_ONCE, deadline

from .inbox import Inbox, IpiHandler, Keeper
from .messages import REPLY, REQUEST, USER, Message, check_type
from .once import once
from .peer import HOST_SPEAKS_WITHIN, Introducer, Peer
from .pending import Pending, wait_for_room

__all__ = ["HOST_SPEAKS_WITHIN", "IpiHandler", "Keeper", "Link"]

if TYPE_CHECKING:
    from multikernel.shm.lane_receiver import LaneReceiver
    from multikernel.shm.lane_sender import LaneSender

    from .aio import AsyncSide

T = TypeVar("T")


class Link:
    """A link to another party: everything that the two ends of a ring can do, and types, replies and IPIs.

    One thread at a time. `recv`, `request`, `peek` and `wait` also run the handlers of IPIs, between messages, lowest
    vector first; IPIs that were raised before a message was sent are handled before it. A handler may use the link.

    A link to an instance outlives its incarnations: while a new one is due, sends go on until the lane is full, and
    receives wait.
    """

    def __init__(
        self,
        sender: LaneSender,
        receiver: LaneReceiver,
        *,
        peer_id: int,
        peer_name: str,
        peer_epoch: int,
        machine: Any,
        counted: tuple[Any, Any] | None,
        keeper: Keeper | None,
        number: int = 0,
        introducer: Introducer | None = None,
        first_id: int = 0,
    ) -> None:
        self._sender = sender
        self._receiver = receiver
        self.peer_id = peer_id
        """Id of the other party: 0 the host, 1 to 511 an instance, from 512 a client."""
        self.peer_name = peer_name
        """Its name."""
        self.peer = Peer(
            self,
            sender,
            receiver,
            id_=peer_id,
            name=peer_name,
            epoch=peer_epoch,
            number=number,
            machine=machine,
            introducer=introducer,
        )
        self._counted = counted
        self._keeper = keeper
        self._inbox = Inbox(self, receiver, keeper)
        self._id = first_id
        self._lent: View | None = None  # of the message that `take` gave out where it lies
        self._evented = False  # somebody may sleep on the receiving end's descriptor
        self._async_side: AsyncSide | None = None  # once it is used in asyncio
        row = counted[1] if counted else ffi.new("struct mk_counters *")
        for end in (sender, receiver):
            end.count_in(row)

    # --- sending

    def send(
        self,
        payload: Any,
        *,
        type: int = USER,  # noqa: A002
        subtype: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Send one message, copied; waits while the lane is full.

        Args:
            payload: bytes-like, contiguous.
            type: 16 bits.
            subtype: 16 bits.
            timeout: seconds to wait for room. None: no limit; 0: do not wait.

        Raises:
            TypeError, ValueError, MessageTooLarge: not a message that this link can carry. Nothing was sent.
            TimeoutError: no room within `timeout`. Nothing was sent.
            Closed: the other party is gone.
        """
        check_type(type, subtype)
        self._put(payload, type, subtype, self.next_id(), timeout)

    def try_send(self, payload: Any, *, type: int = USER, subtype: int = 0) -> bool:  # noqa: A002
        """As `send`, without waiting: whether there was room."""
        check_type(type, subtype)
        id_ = self.next_id()
        return self._saying(once(lambda: self._sender.try_send(payload, type, subtype, id_=id_)))

    def send_many(
        self,
        messages: Iterable[Any],
        *,
        type: int = USER,  # noqa: A002
        subtype: int = 0,
        timeout: float | None = None,
    ) -> int:
        """Send all messages, published many at a time. Returns how many; errors carry `.sent`."""
        return self._put_many(messages, type, subtype, timeout, at_once=False)

    def try_send_many(self, messages: Iterable[Any], *, type: int = USER, subtype: int = 0) -> int:  # noqa: A002
        """As `send_many`, without waiting: how many there was room for."""
        return self._put_many(messages, type, subtype, None, at_once=True)

    def reserve(
        self,
        n: int,
        *,
        type: int = USER,  # noqa: A002
        subtype: int = 0,
        timeout: float | None = None,
    ) -> View:
        """Room for `n` bytes, to be written in place and sent at the end of the block. See `Sender.reserve`."""
        check_type(type, subtype)
        if n < 0:
            raise ValueError(f"reserve({n}): the least is 0")
        take, give = self._sender.reservation(n, type, subtype, timeout, id_=self.next_id())
        return View(
            lambda: self._saying(take),
            lambda ended_well: self._saying(once(lambda: give(ended_well))),
            self._sender.recover,
            readonly=False,
        )

    def reply(
        self,
        message: Message,
        payload: Any,
        *,
        type: int = USER,  # noqa: A002
        subtype: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Answer a message that came by this link. Arguments and errors as for `send`.

        Inside an instance an answer to a party that is gone is dropped: who serves many must not end with one of them.
        """
        check_type(type, subtype)
        try:
            self._put(payload, type, subtype, message.id | REPLY, timeout)
        except Closed:
            if self._keeper is None:
                raise

    def ipi(self, vector: int) -> None:
        """Interrupt the other party. Never waits.

        IPIs of one vector coalesce: the receiver's handler runs once for all that came since, and learns how many.

        Raises:
            ValueError: the vector is not 0 to 63.
            Closed: the other party is gone.
        """
        self._saying(once(lambda: self._sender.ipi(vector)))

    # --- receiving

    def recv(self, timeout: float | None = None) -> Message:
        """The next message, its payload copied; waits while there is none.

        Raises:
            TimeoutError: nothing came within `timeout` seconds.
            Closed: the other party is gone and all that it had sent has been received.
        """
        until = deadline(timeout)
        message = self._hearing(lambda: self._inbox.next(until))
        if message is None:
            raise self._nothing_came(timeout)
        return message

    def try_recv(self) -> Message | None:
        """As `recv`, without waiting; None when nothing is there."""
        return self._hearing(lambda: self._inbox.next(AT_ONCE))

    def recv_many(self, limit: int, timeout: float | None = None) -> list[Message]:
        """Up to `limit` messages, oldest first. Waits for the first, then takes what is there."""
        if limit < 1:
            raise ValueError(f"recv_many({limit}): the least is 1")
        first = self.recv(timeout)
        return self._hearing(lambda: self._with_more(first, limit))

    def try_recv_many(self, limit: int) -> list[Message]:
        """As `recv_many`, without waiting; an empty list when nothing is there."""
        if limit < 1:
            raise ValueError(f"try_recv_many({limit}): the least is 1")
        first = self.try_recv()
        return [] if first is None else self._hearing(lambda: self._with_more(first, limit))

    def _with_more(self, first: Message, limit: int) -> list[Message]:
        found = [first]
        try:
            while len(found) < limit and (message := self._inbox.next(AT_ONCE)) is not None:
                found.append(message)
        except (Closed, CorruptLane, PeerChanged):
            pass  # what was there is delivered first; the next call says it
        except BaseException:  # of a handler, or a Ctrl-C: none of them is lost
            self._inbox.put_back(found)
            raise
        return found

    def peek(self, timeout: float | None = None) -> View:
        """The next message's payload where it lies, read-only; taken at the end of the block. See `Receiver.peek`.

        Handlers of IPIs run before the block, not within.
        """

        def find() -> Any:
            until = deadline(timeout)
            found = self._hearing(lambda: self._inbox.look(until))
            if found is None:
                raise self._nothing_came(timeout)
            return found

        return self._inbox.view(find)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until there is a message, or Closed to be raised. Handlers of IPIs run meanwhile.

        Raises:
            TimeoutError: neither came within `timeout` seconds.
        """
        until = deadline(timeout)
        try:
            found = self.peer.through(lambda: self._inbox.look(until))
            if found is not None:
                self._inbox.leave(found)
        except Closed:
            if self.closed_here:
                raise
            return
        finally:
            self._settle_sender()
        if found is None:
            raise self._nothing_came(timeout)

    def request(
        self,
        payload: Any,
        *,
        type: int = USER,  # noqa: A002
        subtype: int = 0,
        timeout: float | None = 30.0,
    ) -> Message:
        """Send a message and wait for its reply, matched by id. Other messages that come meanwhile stay for `recv`.

        Raises:
            TimeoutError: no reply within `timeout` seconds; should it come later it is dropped, and counted.
            Closed: the other party is gone.
        """
        check_type(type, subtype)
        until = deadline(timeout)
        id_ = self.next_id() | REQUEST
        self._put(payload, type, subtype, id_, timeout)
        message = self._hearing(lambda: self._inbox.reply(id_, until))
        if message is None:
            raise self._no_reply(timeout)
        return message

    def begin(
        self,
        payload: Any,
        *,
        type: int = USER,  # noqa: A002
        subtype: int = 0,
        timeout: float | None = None,
    ) -> Pending:
        """Send a request and do not wait for its reply, so that several can be under way. Raises as `send` does.

        While the lane is full what comes is taken, and kept for whom it is for: the other party may wait for room, too.
        """
        check_type(type, subtype)
        until = deadline(timeout)
        pending = Pending(self._inbox, self.next_id() | REQUEST, self._hearing, self._no_reply)
        attempt = once(lambda: self._sender.try_send(payload, type, subtype, id_=pending.id))
        while not self._saying(attempt):
            if self._receiver.ready:
                pending.try_reply()  # takes all there is
            elif not wait_for_room(self._sender, self._receiver, until):
                raise self._sender.error(-errno.ETIMEDOUT, timeout=timeout)
        return pending

    # --- services

    def proxy(self, service: type[T], timeout: float | None = 30.0) -> T:
        """What has the methods of a class that is served at the other end (`multikernel.method`), to call them there.

        A call waits for its result as `request` does. Cheap: make one for each time-out.

        Args:
            service: the class. Its code is not run here.
            timeout: seconds for each call, waiting for its turn included; a service does not begin one that is over.

        Raises:
            TypeError: the class offers nothing, or what cannot be called over a link.
            Unsupported: msgspec is not installed (the extra `typed`).
        """
        from .proxy import proxy

        return proxy(self, service, timeout)

    def aproxy(self, service: type, timeout: float | None = 30.0) -> Any:
        """As `proxy`, for asyncio: calls are awaited, many may be under way, and one that is cancelled is so there."""
        from .proxy import async_proxy

        return async_proxy(self, service, timeout)

    # --- in asyncio

    async def arecv(self) -> Message:
        """As `recv`, in asyncio: other tasks run while there is none. One task at a time (NotOwner)."""
        return await self._aio().receive()

    async def asend(self, payload: Any, *, type: int = USER, subtype: int = 0) -> None:  # noqa: A002
        """As `send`, in asyncio: other tasks run while the lane is full. One task at a time (NotOwner)."""
        check_type(type, subtype)
        await self._aio().send(payload, type, subtype, self.next_id())

    async def arequest(
        self,
        payload: Any,
        *,
        type: int = USER,  # noqa: A002
        subtype: int = 0,
        timeout: float | None = 30.0,  # noqa: ASYNC109 as `request`; a late reply is then known for what it is
        id: int | None = None,  # noqa: A002
    ) -> Message:
        """As `request`, in asyncio. Several tasks may have requests under way, and one of them may wait in `arecv`.

        `id` is one that `next_id` gave, for who has to know it before the reply.
        """
        check_type(type, subtype)
        deadline(timeout)  # raises what is wrong with it
        try:
            return await self._aio().request(payload, type, subtype, self.next_id() if id is None else id, timeout)
        except TimeoutError:
            raise self._no_reply(timeout) from None

    def _aio(self) -> AsyncSide:
        if self._async_side is None:
            from .aio import AsyncSide

            self._evented = True
            self._async_side = AsyncSide(self._sender, self._receiver, self._inbox, self.peer)
        return self._async_side

    def __aiter__(self) -> AsyncIterator[Message]:
        from multikernel.shm.aio import each

        return each(self.arecv)

    # --- interrupts

    @property
    def late_replies(self) -> int:
        """Replies that came after their request had given up; they were dropped."""
        return self._inbox.late_replies

    def on_ipi(self, vector: int, handler: IpiHandler) -> None:
        """Call `handler(vector, count)` for IPIs of `vector` that come by this link."""
        self._inbox.on_ipi(vector, handler)

    def mask(self, vector: int) -> None:
        """Hold a vector back: it is counted and delivered after `unmask`."""
        self._receiver.mask(vector, masked=True)

    def unmask(self, vector: int) -> None:
        """Let a vector through again."""
        self._receiver.mask(vector, masked=False)

    # --- either

    def fileno(self) -> int:
        """A descriptor for event loops, level-triggered. It belongs to this link.

        Readable while a message or an IPI is there that was not received, or the other party is gone. Messages that
        came while a request waited are received already: ask `try_recv` for them after the request.
        """
        self._evented = True
        return self._receiver.fileno()

    @property
    def counters(self) -> Counters:
        """What has gone through this link."""
        return Counters.of(self._sender.read_counters())

    @property
    def closed(self) -> bool:
        """Whether this link was closed here, or the other party is gone (unread messages may be left)."""
        return self.closed_here or bool(self._receiver.view().gone)

    @property
    def closed_here(self) -> bool:
        """Whether this link was closed here."""
        return self._receiver.closed or self._sender.closed

    def close(self) -> None:
        """Close the link; the other party still gets all that was sent, then Closed. Idempotent.

        Raises:
            NotOwner: another thread is using it, or a view of it is still open.
        """
        lent, self._lent = self._lent, None
        if lent is not None:
            lent.__exit__(None, None, None)
        ends = [end for end in (self._receiver, self._sender) if not end.closed]
        for end in ends:
            end.check_free()
        if ends and self._sender.here:  # what follows is the parent's alone to do, not a forked copy's
            self._count_no_more(ends)
            self.peer.close()
        for end in ends:
            end.close()

    def leave(self) -> None:
        """This process is about to end: use the link no more, but do not close it, so that a successor can have it."""
        ends = [end for end in (self._receiver, self._sender) if not end.closed]
        for end in ends:
            end.check_free()
        self._count_no_more(ends)
        self.peer.forget()
        for end in ends:
            end.leave()

    def _count_no_more(self, ends: Iterable[LaneReceiver | LaneSender]) -> None:
        if self._keeper is not None:
            self._keeper.forget(self)
        if self._counted is not None:
            for end in ends:
                end.count_in(ffi.NULL)
            status, row = self._counted
            self._counted = None
            status.unlink(row)

    def __iter__(self) -> Iterator[Message]:
        while True:
            try:
                message = self.recv()
            except Closed:
                return
            yield message

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        ends = [end for name in ("_sender", "_receiver") if (end := getattr(self, name, None)) is not None]
        if any(end.here for end in ends):
            _warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            if (peer := getattr(self, "peer", None)) is not None:
                peer.forget()
            for end in ends:
                end.abandon()

    def __repr__(self) -> str:
        state = "closed" if self.closed_here else "open"
        return f"<Link to {self.peer_name} (id {self.peer_id}), {state}>"

    def next_id(self) -> int:
        """A number for the next message."""
        self._id += 1
        return self._id

    # --- for a loop over many links

    @property
    def receiving_end(self) -> Any:
        """The C end that receives, for a wait set; valid until `close`."""
        return self._receiver.end

    @property
    def waits(self) -> bool:
        """Whether a look at it is worth its while. No system call."""
        try:
            return self._inbox.waits
        except (Closed, NotOwner):  # it was closed here; or a view of it is open
            return False

    def in_asyncio(self, heard: Callable[[], object]) -> int:
        """Be served by an event loop: its descriptor. `heard` is called after each call that may have received."""
        self._aio().heard = heard
        return self._receiver.fileno()

    def waits_on(self) -> tuple[LaneReceiver, ...]:
        """The lanes to wait for, for `wait`: inside an instance the host's is one of them."""
        if self._keeper is None:
            return (self._receiver,)
        return self._keeper.waits_on(), self._receiver

    def serve_interrupts(self) -> bool:
        """Run the handlers of IPIs that were raised. Takes no message: whether there is one, or the peer is gone."""
        try:
            self.peer.settle()
            return self._inbox.serve_interrupts()
        except NotOwner:  # a view of it is open: of the message that is being dealt with
            return True

    def next_due(self) -> int:
        """When `has_news` has something to serve though nothing came: CLOCK_MONOTONIC, ns; negative: never."""
        return -1 if self._keeper is None else self._keeper.next_due()

    def has_news(self) -> bool:
        """Whether `recv` would return or raise at once. Handlers of IPIs that were raised run; messages stay."""
        if self._keeper is not None:
            self._keeper.serve()
        if not self._inbox.waits and not self.peer.unsettled:
            return False
        try:
            found = self.peer.through(lambda: self._inbox.look(AT_ONCE))
        except (Closed, CorruptLane):
            if self.closed_here:
                raise
            return True
        if found is not None:
            self._inbox.leave(found)
        return found is not None

    def take(self, *, copy: bool) -> tuple[Message, Callable[[], None]] | None:
        """The next message without waiting, and what gives its space back once it has been dealt with.

        Handlers of IPIs that were raised before it have run by then. Raises Closed as `recv` does, at once. Asking this
        link for more, in whatever way, gives the space back too.
        """
        if not self._inbox.waits and not self.peer.unsettled:
            return None
        try:
            return self.peer.through(lambda: self._take(copy=copy), wait=False)
        finally:
            self._settle_sender()

    def _take(self, *, copy: bool) -> tuple[Message, Callable[[], None]] | None:
        if copy:
            message = self._inbox.next(AT_ONCE, hold=True)
            return None if message is None else (message, self._inbox.done)
        found = self._inbox.look(AT_ONCE)
        if found is None:
            return None
        try:
            header = self._inbox.header(found)
            self._lent = self._inbox.view(lambda: found)
            return replace(header, payload=self._lent.__enter__()), self._give_back
        except BaseException:
            self._lent = None
            self._receiver.recover()
            raise

    def _give_back(self) -> None:
        lent, self._lent = self._lent, None
        if lent is not None:
            lent.__exit__(None, None, None)

    # --- inside

    def _put(self, payload: Any, type_: int, subtype: int, id_: int, timeout: float | None) -> None:
        until = deadline(timeout)
        self._saying(once(lambda: self._sender.send(payload, type_, subtype, timeout, id_=id_, until=until)))

    def _put_many(
        self, messages: Iterable[Any], type_: int, subtype: int, timeout: float | None, *, at_once: bool
    ) -> int:
        check_type(type_, subtype)
        payloads = list(messages)
        first, self._id = self._id + 1, self._id + len(payloads)
        until = AT_ONCE if at_once else deadline(timeout)
        sent = 0

        def put_the_rest() -> int:
            nonlocal sent
            try:
                sent += self._sender.send_many(
                    payloads[sent:], type_, subtype, timeout, id_=first + sent, at_once=at_once, until=until
                )
            except (MultikernelError, PeerChanged) as error:
                sent += getattr(error, "sent", 0)
                error.sent = sent
                raise
            return sent

        return self._saying(put_the_rest)

    def _saying(self, call: Callable[[], T]) -> T:
        """A call of the sending end: it may read the socket that both ends share, and what woke the other with it."""
        try:
            return self.peer.through(call)
        finally:
            if self._evented and not self._receiver.closed:
                self._receiver.settle()

    def _hearing(self, call: Callable[[], T]) -> T:
        """A call of the receiving end; the same the other way round."""
        try:
            return self.peer.through(call)
        finally:
            self._settle_sender()

    def _settle_sender(self) -> None:
        if self._async_side is not None:
            self._async_side.settle()

    def _no_reply(self, timeout: float | None) -> Timeout:
        within = f" within {timeout:g} s" if timeout else ""
        return Timeout(f"{self.peer_name} did not reply{within}", timeout=timeout)

    def _nothing_came(self, timeout: float | None) -> Timeout:
        within = f" within {timeout:g} s" if timeout else ""
        return Timeout(f"nothing came from {self.peer_name}{within}", timeout=timeout)
