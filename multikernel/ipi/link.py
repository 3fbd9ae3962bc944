"""`Link`: a pair of lanes between two parties of a machine, with messages, requests and IPIs."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from multikernel._core import ffi, lib
from multikernel.errors import Closed, Timeout
from multikernel.shm.lane import IPI_WAITS, LaneReceiver, LaneSender, Record
from multikernel.shm.records import Counters
from multikernel.shm.views import View
from multikernel.shm.waiting import AT_ONCE, deadline

from .messages import REPLY, REQUEST, USER, Message, check_type

IpiHandler = Callable[[int, int], object]
"""Called with the vector and how often it was raised since the last time: IPIs coalesce."""

T = TypeVar("T")

HOST_SPEAKS_WITHIN = 1.0
"""Seconds that a link waits for the host to say what has become of a dead instance."""


class Keeper(Protocol):
    """Whoever serves more than this link: inside an instance, its kernel."""

    def interrupt(self, vector: int, count: int) -> None:
        """An IPI came by the link."""

    def sleep(self, link: Link, until: int) -> bool:
        """Wait for the link, serving what else there is; False when `until` (CLOCK_MONOTONIC, ns) has come."""

    def forget(self, link: Link) -> None:
        """The link is about to be closed."""


class Link:
    """A link to another party: everything that the two ends of a ring can do, and types, replies and IPIs.

    One thread at a time. `recv`, `request` and `wait` also run the handlers of IPIs, between messages, lowest vector
    first; IPIs that were raised before a message was sent are handled before it.
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
    ) -> None:
        self._sender = sender
        self._receiver = receiver
        self.peer_id = peer_id
        """Id of the other party: 0 the host, 1 to 511 an instance, from 512 a client."""
        self.peer_name = peer_name
        """Its name."""
        self._peer_epoch = peer_epoch
        self._machine = machine
        self._counted = counted
        self._keeper = keeper
        self._id = 0
        self._set_aside: deque[Message] = deque()
        self._handlers: dict[int, list[IpiHandler]] = {}
        self._evented = False
        self.late_replies = 0
        """Replies that came after their request had given up; they were dropped."""
        row = counted[1] if counted else self._private_counters()
        for end in (sender, receiver):
            end.count_in(row)

    def _private_counters(self) -> Any:
        self._row = ffi.new("struct mk_counters *")
        return self._row

    # --- sending

    def send(
        self,
        payload: Any,
        *,
        type: int = USER,
        subtype: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Send one message, copied; waits while the lane is full.

        Args:
            payload: bytes-like, contiguous.
            type, subtype: 16 bits each.
            timeout: seconds to wait for room. None: no limit; 0: do not wait.

        Raises:
            TypeError, ValueError, MessageTooLarge: not a message that this link can carry. Nothing was sent.
            TimeoutError: no room within `timeout`. Nothing was sent.
            Closed: the other party is gone.
        """
        check_type(type, subtype)
        self._put(payload, type, subtype, self._next_id(), timeout)

    def try_send(self, payload: Any, *, type: int = USER, subtype: int = 0) -> bool:  # noqa: A002
        """As `send`, without waiting: whether there was room."""
        check_type(type, subtype)
        return self._ask(lambda: self._sender.try_send(payload, type, subtype, self._next_id()))

    def send_many(
        self,
        messages: Iterable[Any],
        *,
        type: int = USER,
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
        type: int = USER,
        subtype: int = 0,
        timeout: float | None = None,
    ) -> View:
        """Room for a message of `n` bytes, to be written in place; sent at the end of the block. See `Sender.reserve`."""
        check_type(type, subtype)
        if n < 0:
            raise ValueError(f"reserve({n}): a message has no negative size")
        return self._sender.reserve(n, type, subtype, self._next_id, timeout)

    def reply(
        self,
        message: Message,
        payload: Any,
        *,
        type: int = USER,
        subtype: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Answer a message that came by this link."""
        check_type(type, subtype)
        self._put(payload, type, subtype, message.id | REPLY, timeout)

    def ipi(self, vector: int) -> None:
        """Interrupt the other party. Never waits; IPIs of one vector coalesce, and the receiver learns how many there were.

        Raises:
            ValueError: the vector is not 0 to 63.
            Closed: the other party is gone.
        """
        self._ask(lambda: self._sender.ipi(vector))

    # --- receiving

    def recv(self, timeout: float | None = None) -> Message:
        """The next message, its payload copied; waits while there is none.

        Raises:
            TimeoutError: nothing came within `timeout` seconds.
            Closed: the other party is gone and all that it had sent has been received.
        """
        if self._set_aside:
            return self._set_aside.popleft()
        message = self._next(timeout, at_once=False)
        assert message is not None
        return message

    def try_recv(self) -> Message | None:
        """As `recv`, without waiting; None when nothing is there."""
        if self._set_aside:
            return self._set_aside.popleft()
        return self._next(None, at_once=True)

    def recv_many(self, limit: int, timeout: float | None = None) -> list[Message]:
        """Up to `limit` messages, oldest first. Waits for the first, then takes what is there."""
        if limit < 1:
            raise ValueError(f"recv_many({limit}): the least is 1")
        found = [self.recv(timeout)]
        while len(found) < limit:
            try:
                message = self.try_recv()
            except Closed:
                break  # what was there is delivered first; the next call says it
            if message is None:
                break
            found.append(message)
        return found

    def try_recv_many(self, limit: int) -> list[Message]:
        """As `recv_many`, without waiting; an empty list when nothing is there."""
        first = self.try_recv()
        if first is None:
            return []
        self._set_aside.appendleft(first)
        return self.recv_many(limit)

    def peek(self, timeout: float | None = None) -> View:
        """The next message's payload where it lies, read-only; taken at the end of the block. See `Receiver.peek`."""
        if self._set_aside:
            payload = self._set_aside.popleft().payload
            return View(lambda: (ffi.from_buffer(payload), len(payload)), lambda _: None, readonly=True)
        self.wait(timeout)
        return self._receiver.peek(timeout, interrupted=self._run_handlers)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until there is a message (or Closed to be raised). Handlers of IPIs run meanwhile."""
        until = deadline(timeout)
        while not self._set_aside:
            if self._run_handlers() or not self._receiver.ready:
                self._sleep(timeout, until)
            else:
                return

    def request(
        self,
        payload: Any,
        *,
        type: int = USER,
        subtype: int = 0,
        timeout: float | None = 30.0,
    ) -> Message:
        """Send a message and wait for its reply, matched by id. Other messages that come meanwhile stay for `recv`.

        Raises:
            TimeoutError: no reply within `timeout` seconds; should it come later it is dropped, and counted.
            Closed: the other party is gone.
        """
        until = deadline(timeout)
        id_ = self.post_request(payload, type=type, subtype=subtype, timeout=timeout)
        while True:
            try:
                message = self._take(timeout, until)
            except Timeout:
                raise Timeout(f"{self.peer_name} did not reply within {timeout:g} s", timeout=timeout) from None
            if message is None:
                continue
            if message.id == id_ | REPLY:
                return message
            self.set_aside(message)

    def post_request(
        self,
        payload: Any,
        *,
        type: int = USER,
        subtype: int = 0,
        timeout: float | None = None,
    ) -> int:
        """Send a request without waiting for the reply. Returns its id; the reply's is the same with REPLY."""
        check_type(type, subtype)
        id_ = self._next_id() | REQUEST
        self._put(payload, type, subtype, id_, timeout)
        return id_

    def set_aside(self, message: Message) -> None:
        """Keep a message for `recv`; a reply to a request that has given up is dropped and counted."""
        if message.id & REPLY and message.id & REQUEST:
            self.late_replies += 1
        else:
            self._set_aside.append(message)

    def on_ipi(self, vector: int, handler: IpiHandler) -> None:
        """Call `handler(vector, count)` for IPIs of `vector` that come by this link."""
        if not 0 <= vector < lib.MK_VECTORS:
            raise ValueError(f"vector {vector}: there are 0 to {lib.MK_VECTORS - 1}")
        self._handlers.setdefault(vector, []).append(handler)

    def mask(self, vector: int) -> None:
        """Hold a vector back: it is counted and delivered after `unmask`."""
        self._receiver.mask(vector, masked=True)

    def unmask(self, vector: int) -> None:
        """Let a vector through again."""
        self._receiver.mask(vector, masked=False)

    # --- either

    def fileno(self) -> int:
        """A descriptor for event loops: readable while a message or an IPI is there, or the other party is gone."""
        self._evented = True
        return self._receiver.fileno()

    @property
    def counters(self) -> Counters:
        """What has gone through this link."""
        copy = ffi.new("struct mk_counters_copy *")
        lib.mk_py_read_counters(self._sender.end, copy)
        return Counters.of(copy)

    @property
    def closed(self) -> bool:
        """Whether this link was closed here, or the other party is gone (unread messages may be left)."""
        return self._receiver.closed or bool(self._receiver.view().gone)

    def close(self) -> None:
        """Close the link; the other party still gets all that was sent, then Closed. Idempotent."""
        if self._sender.closed:
            return
        if self._keeper is not None:
            self._keeper.forget(self)
        self._sender.close()
        self._receiver.close()
        if self._counted is not None:
            status, row = self._counted
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

    def __del__(self) -> None:
        if not self._sender.closed:
            if self._sender.here:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self._sender.close()
            self._receiver.close()

    def __repr__(self) -> str:
        state = "closed" if self._sender.closed else "open"
        return f"<Link to {self.peer_name} (id {self.peer_id}), {state}>"

    # --- inside

    def _next_id(self) -> int:
        self._id += 1
        return self._id

    def _put(self, payload: Any, type_: int, subtype: int, id_: int, timeout: float | None) -> None:
        try:
            self._sender.send(payload, type_, subtype, id_, timeout)
        except Closed:
            self._await_verdict()
            raise
        if self._evented:
            self._receiver.settle()

    def _put_many(
        self, messages: Iterable[Any], type_: int, subtype: int, timeout: float | None, *, at_once: bool
    ) -> int:
        check_type(type_, subtype)
        payloads = list(messages)
        first, self._id = self._id + 1, self._id + len(payloads)
        sent = self._ask(lambda: self._sender.send_many(payloads, type_, subtype, first, timeout, at_once=at_once))
        if self._evented:
            self._receiver.settle()
        return sent

    def _next(self, timeout: float | None, *, at_once: bool) -> Message | None:
        """The next message that is not a late reply."""
        until = AT_ONCE if at_once else deadline(timeout)
        while True:
            message = self._take(timeout, until, at_once=at_once)
            if message is None:
                if at_once and not self._receiver.ready:
                    return None
            elif message.id & REPLY and message.id & REQUEST:
                self.late_replies += 1
            else:
                return message

    def _take(self, timeout: float | None, until: int, *, at_once: bool = False) -> Message | None:
        """One record as a message; None when there is none (`at_once`), or when something else was served."""
        try:
            record = self._receiver.receive(timeout, until=until, at_once=at_once or self._keeper is not None)
        except Closed:
            self._await_verdict()
            raise
        if record is IPI_WAITS:
            self._run_handlers()
            return None
        if record is None and not at_once:
            self._sleep(timeout, until)
        return None if record is None else self.message(record)

    def _sleep(self, timeout: float | None, until: int) -> None:
        if self._keeper is None:
            self._ask(lambda: self._receiver.wait(timeout, until=until))
        elif not self._keeper.sleep(self, until):
            raise Timeout(f"nothing came from {self.peer_name}" + (f" within {timeout:g} s" if timeout else ""))

    # --- for a loop over many links

    @property
    def receiving_end(self) -> Any:
        """The C end that receives, for a wait set."""
        return self._receiver.end

    def take(self, *, copy: bool) -> tuple[Message, Callable[[], None]] | None:
        """The next message without waiting, and what gives its space back once it has been dealt with.

        Handlers of IPIs that were raised before it have run by then. Raises Closed as `recv` does, at once.
        """
        while self._receiver.ready:
            if self._set_aside:
                break
            if copy:
                record = self._receiver.receive(None, at_once=True, hold=True)
                if record is IPI_WAITS:
                    self._run_handlers()
                    continue
                if record is None:
                    return None
                message, give_back = self.message(record), self._receiver.done
            else:
                self._run_handlers()
                if not self._receiver.ready:
                    return None
                message, give_back = self._in_place()
            if message.id & REPLY and message.id & REQUEST:
                self.late_replies += 1
                give_back()
                continue
            return message, give_back
        if self._set_aside:
            return self._set_aside.popleft(), lambda: None
        return None

    def _in_place(self) -> tuple[Message, Callable[[], None]]:
        """A message whose payload is a view of the ring."""
        headers: list[Any] = []
        view = self._receiver.peek(0, seen=headers.append, interrupted=self._run_handlers)
        payload = view.__enter__()
        header = headers[0]
        message = Message(header.type, header.subtype, header.id, self.peer_id, False, payload, self)
        return message, lambda: view.__exit__(None, None, None)

    def message(self, record: Record) -> Message:
        """A record of this link as a message."""
        return Message(record.type, record.subtype, record.id, self.peer_id, False, record.payload, self)

    def _run_handlers(self) -> bool:
        """Take all pending IPIs; whether there was one."""
        ran = False
        while (raised := self._receiver.take_ipi()) is not None:
            ran = True
            if self._keeper is not None:
                self._keeper.interrupt(*raised)
            for handler in self._handlers.get(raised[0], ()):
                handler(*raised)
        return ran

    def _ask(self, call: Callable[[], T]) -> T:
        """A call that may find the peer gone."""
        try:
            return call()
        except Closed:
            self._await_verdict()
            raise

    def _await_verdict(self) -> None:
        """After the peer is gone: wait until the host has said what became of it, or is silent for too long.

        So that who is told Closed then reads the instance's new state, and not the old one.
        """
        if self._sender.closed or self._machine is None or not 0 < self.peer_id < lib.MK_CLIENT_ID:
            return
        begin = time.monotonic()
        while (waited := time.monotonic() - begin) < HOST_SPEAKS_WITHIN:
            record = self._machine.instance(self.peer_id)
            if record is None or record.epoch != self._peer_epoch or record.state not in ("active", "standby"):
                return
            if self._receiver.peer_closed and waited > 0.05:
                return  # it lives, and closed this link only
            time.sleep(0.001)
