"""The two ends of a claimed lane: records and elements in and out, waiting, closing. Rings and links are made of these.

One call into the core does one message, waiting included. `-EINTR` comes back from it so that the interpreter can run
its signal handlers; the same call is then made again with the same deadline.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from multikernel._core import failure, ffi, lib
from multikernel.errors import Closed, CorruptLane, MessageTooLarge, NotOwner, Timeout

from .objects import refusal
from .views import View
from .waiting import AT_ONCE, WaitPolicy, deadline, policy_number

BATCH_RECORDS = 256
BATCH_BYTES = 256 * 1024
"""A batch is taken in steps of at most these, so that the sender gets room back while the rest is copied."""

IPI_WAITS = object()
"""What `LaneReceiver.receive` returns instead of a record when an IPI was raised before the next one."""


class Record(NamedTuple):
    """A record as it came: what its header says, and a copy of its payload."""

    payload: bytes
    type: int
    subtype: int
    id: int


def as_buffer(payload: Any) -> tuple[Any, int]:
    """What the core can read a payload from, and its length in bytes. Nothing is copied."""
    if type(payload) is bytes:
        return payload, len(payload)
    try:
        view = memoryview(payload)
    except TypeError:
        raise TypeError(f"a message is bytes or another object with a buffer, not {type(payload).__name__}") from None
    if not view.c_contiguous:
        raise ValueError(f"a message must be contiguous; this has strides {view.strides}: send a copy of it")
    return ffi.from_buffer(view), view.nbytes


class _Failures:
    """Turns the core's negative results into errors that say who is at the other end."""

    __slots__ = ("end", "peer", "role")

    def __init__(self, end: Any, role: str, peer: str) -> None:
        self.end = end
        self.role = role
        self.peer = peer  # what the other end is called

    def view(self) -> Any:
        view = ffi.new("struct mk_py_view *")
        lib.mk_py_inspect(self.end, view)
        return view

    def fail(self, code: int, *, timeout: float | None = None, length: int = 0) -> NoReturn:
        if code == -errno.EPIPE:
            pid = self.view().peer_pid
            who = f"{self.peer} (pid {pid})" if pid else f"{self.peer}, which nobody holds any more,"
            raise Closed(f"{who} has closed its end or ended", pid=pid)
        if code in (-errno.ETIMEDOUT, -errno.EAGAIN):
            within = f" within {timeout:g} s" if timeout else ""
            raise Timeout(
                f"nothing came from {self.peer}{within}"
                if self.role == "receiver"
                else f"{self.peer} made no room{within}",
                timeout=timeout,
            )
        if code == -errno.EMSGSIZE:
            view = self.view()
            limit = view.capacity if view.element else view.capacity - 16
            raise MessageTooLarge(
                f"a message of {length} bytes never fits: this ring holds messages of up to {limit} bytes. "
                "Make it with a larger capacity, or send the message in pieces",
                length=length,
                limit=limit,
            )
        if code == -errno.EBUSY:
            raise NotOwner(f"this {self.role} is in use by another thread, or a view of it is still open")
        if code == -errno.ECHILD:
            raise NotOwner(f"this {self.role} belongs to the process that this one was forked from")
        if code == -errno.EBADMSG:
            view = self.view()
            what = {lib.MK_BAD_HEAD: "head", lib.MK_BAD_TAIL: "tail", lib.MK_BAD_LENGTH: "record length"}.get(
                view.bad, ""
            )
            raise CorruptLane(
                f"{self.peer} (pid {view.peer_pid}) wrote a {what} that cannot be: {view.bad_value:#x}. "
                "The lane is quarantined; close it",
                what=what,
                value=view.bad_value,
                pid=view.peer_pid,
            )
        raise failure(code, self.role)


class LaneSender:
    """The sending end of a lane that this process has claimed.

    Args:
        fd: a writable descriptor of the producer object; still the caller's afterwards.
        peer: what the other end is called in errors.
        counters: where the core counts; NULL counts privately.
    """

    __slots__ = ("__weakref__", "_end", "_failures", "_tx")

    def __init__(self, fd: int, peer: str, *, counters: Any = ffi.NULL, wait: WaitPolicy = "adaptive") -> None:
        self._tx = _claim(lib.mk_sender_claim, "struct mk_sender **", fd, counters, "producer")
        self._end = lib.mk_py_sender_end(self._tx)
        self._failures = _Failures(self._end, "sender", peer)
        lib.mk_py_policy(self._end, policy_number(wait))

    def attach(self, consumer_fd: int, *, owned: bool, socket_fd: int = -1, pidfd: int = -1) -> None:
        """Attach the receiver's object. The socket and the pidfd belong to the end from now on."""
        _attach(lib.mk_sender_attach, self._tx, consumer_fd, owned, socket_fd, pidfd, "consumer")

    def send(self, payload: Any, type_: int, subtype: int, id_: int, timeout: float | None) -> None:
        """Send one record, waiting for room."""
        buffer, length = as_buffer(payload)
        until = deadline(timeout)
        code = lib.mk_py_send(self._open(), type_, subtype, id_, buffer, length, until)
        while code == -errno.EINTR:
            code = lib.mk_py_send(self._tx, type_, subtype, id_, buffer, length, until)
        if code:
            self._failures.fail(code, timeout=timeout, length=length)

    def try_send(self, payload: Any, type_: int, subtype: int, id_: int) -> bool:
        """Send one record if there is room at once."""
        buffer, length = as_buffer(payload)
        code = lib.mk_py_send(self._open(), type_, subtype, id_, buffer, length, AT_ONCE)
        if code and code != -errno.EAGAIN:
            self._failures.fail(code, length=length)
        return not code

    def send_many(
        self,
        payloads: Sequence[Any],
        type_: int,
        subtype: int,
        id_: int,
        timeout: float | None,
        *,
        at_once: bool = False,
    ) -> int:
        """Send all, publishing many at a time; the records' ids count up from `id_`. Errors carry `.sent`."""
        until = AT_ONCE if at_once else deadline(timeout)
        buffers = [as_buffer(payload) for payload in payloads]
        starts = [ffi.from_buffer(buffer) if type(buffer) is bytes else buffer for buffer, _ in buffers]
        pointers = ffi.new("const void *[]", starts)
        lengths = ffi.new("uint64_t[]", [length for _, length in buffers])
        why = ffi.new("int *")
        sent = 0
        while sent < len(buffers):
            sent += lib.mk_py_send_many(
                self._open(),
                type_,
                subtype,
                id_ + sent,
                pointers + sent,
                lengths + sent,
                len(buffers) - sent,
                until,
                why,
            )
            if not self._goes_on(
                why[0], sent, buffers[sent][1] if sent < len(buffers) else 0, timeout, at_once=at_once
            ):
                break
        return sent

    def send_elements(
        self, elements: Any, count: int, size: int, timeout: float | None, *, at_once: bool = False
    ) -> int:
        """Send `count` elements of `size` bytes each that lie in a row in `elements`. Errors carry `.sent`."""
        until = AT_ONCE if at_once else deadline(timeout)
        start = ffi.from_buffer(elements)
        why = ffi.new("int *")
        sent = 0
        while sent < count:
            sent += lib.mk_py_send_elements(self._open(), start + sent * size, count - sent, until, why)
            if not self._goes_on(why[0], sent, size, timeout, at_once=at_once):
                break
        return sent

    def _goes_on(self, code: int, sent: int, length: int, timeout: float | None, *, at_once: bool) -> bool:
        """Whether a batch that stopped with `code` is to be tried again; an error that carries `.sent` otherwise."""
        if code in (0, -errno.EINTR):
            return True
        if at_once and code == -errno.EAGAIN:
            return False
        try:
            self._failures.fail(code, timeout=timeout, length=length)
        except (Closed, Timeout, MessageTooLarge) as error:
            error.sent = sent
            raise

    def reserve(
        self, n: int, type_: int, subtype: int, next_id: Callable[[], int], timeout: float | None, *, element: int = 0
    ) -> View:
        """A view of room for `n` bytes, or `n` elements; sent when its block ends well."""
        length = n * element if element else n

        def take() -> tuple[Any, int]:
            slot = ffi.new("void **")
            until = deadline(timeout)
            code = lib.mk_py_reserve(self._open(), n, slot, until)
            while code == -errno.EINTR:
                code = lib.mk_py_reserve(self._tx, n, slot, until)
            if code:
                self._failures.fail(code, timeout=timeout, length=length)
            return slot[0], length

        def give(ended_well: bool) -> None:
            if self._tx is None:
                return
            if ended_well:
                lib.mk_py_commit(self._tx, n, type_, subtype, next_id())
            else:
                lib.mk_py_abandon(self._tx)

        return View(take, give, readonly=False)

    def ipi(self, vector: int) -> None:
        """Raise a vector at the receiver. Never waits."""
        code = lib.mk_py_ipi(self._open(), vector) if 0 <= vector < lib.MK_VECTORS else -errno.EINVAL
        if code == -errno.EINVAL:
            raise ValueError(f"vector {vector}: there are 0 to {lib.MK_VECTORS - 1}")
        if code:
            self._failures.fail(code)

    def wait(self, timeout: float | None) -> None:
        """Wait for the room that was missing, or for the receiver's end."""
        _wait(self._open() and self._end, self._failures, timeout)

    def fileno(self) -> int:
        """A descriptor that is readable while there is room again, or the receiver is gone."""
        return _event(self._open() and self._end, self._failures)

    def call_peer(self, name: str) -> None:
        """What the other end is called in errors from now on."""
        self._failures.peer = name

    def count_in(self, counters: Any) -> None:
        """Count in a struct mk_counters, which must outlive this end, instead of privately."""
        lib.mk_py_counters(self.end, counters)

    @property
    def end(self) -> Any:
        """The C end, for a wait set."""
        return self._open() and self._end

    def view(self) -> Any:
        """What the core knows of this end (struct mk_py_view)."""
        self._open()
        return self._failures.view()

    @property
    def peer_closed(self) -> bool:
        """Whether the other side closed its end itself; a process that died did not."""
        return bool(lib.mk_py_peer_closed(self.end))

    @property
    def closed(self) -> bool:
        """Whether this end was closed here."""
        return self._tx is None

    @property
    def here(self) -> bool:
        """Whether it is this process that claimed it, and not the one it was forked from."""
        return bool(self._failures.view().claimed_here)

    def close(self) -> None:
        """Close this end; the receiver still gets what was published. Idempotent.

        Raises:
            NotOwner: another thread is using it, or a view of it is still open.
        """
        if self._tx is None:
            return
        if lib.mk_py_enter(self._end) == -errno.EBUSY:
            self._failures.fail(-errno.EBUSY)
        tx, self._tx = self._tx, None
        lib.mk_sender_close(tx)

    def _open(self) -> Any:
        if self._tx is None:
            raise Closed("this sender was closed here")
        return self._tx


class LaneReceiver:
    """The receiving end of a lane that this process has claimed. Arguments as for `LaneSender`."""

    __slots__ = ("__weakref__", "_end", "_failures", "_messages", "_rx")

    def __init__(
        self, fd: int, peer: str, *, counters: Any = ffi.NULL, wait: WaitPolicy = "adaptive", ipis: bool
    ) -> None:
        self._rx = _claim(lib.mk_receiver_claim, "struct mk_receiver **", fd, counters, "consumer")
        self._end = lib.mk_py_receiver_end(self._rx)
        self._failures = _Failures(self._end, "receiver", peer)
        self._messages = ffi.new("struct mk_message[]", 1)
        lib.mk_py_policy(self._end, policy_number(wait))
        if not ipis:
            lib.mk_py_mask_all(self._rx)

    def attach(self, producer_fd: int, *, owned: bool, socket_fd: int = -1, pidfd: int = -1) -> None:
        """Attach the sender's object. The socket and the pidfd belong to the end from now on."""
        _attach(lib.mk_receiver_attach, self._rx, producer_fd, owned, socket_fd, pidfd, "producer")

    def receive(
        self, timeout: float | None, *, until: int | None = None, at_once: bool = False, hold: bool = False
    ) -> Any:
        """The next `Record`; None when `at_once` and there is none; `IPI_WAITS`.

        With `hold` its space is not given back until `done`: should this process die before, it was not received.
        `until` is the deadline where there is one already; `timeout` is then for the error only.
        """
        if at_once:
            until = AT_ONCE
        elif until is None:
            until = deadline(timeout)
        message = self._messages
        code = lib.mk_py_peek(self._open(), message, 1, BATCH_BYTES, until)
        while code == -errno.EINTR:
            code = lib.mk_py_peek(self._open(), message, 1, BATCH_BYTES, until)
        if code < 0:
            if at_once and code == -errno.EAGAIN:
                return None
            if code == -errno.ENOMSG:
                return IPI_WAITS
            self._failures.fail(code, timeout=timeout)
        first = message[0]
        record = Record(ffi.buffer(first.payload, first.length)[:], first.type, first.subtype, first.id)
        if hold:
            lib.mk_py_hold(self._rx)
        else:
            lib.mk_py_release(self._rx)
        return record

    def done(self) -> None:
        """Give back what was received with `hold`."""
        code = lib.mk_py_done(self._open())
        if code:
            self._failures.fail(code)

    def receive_many(self, limit: int, timeout: float | None, *, at_once: bool = False) -> Any:
        """Up to `limit` records, waiting for the first only; [] when `at_once` and there is none; `IPI_WAITS`."""
        until = AT_ONCE if at_once else deadline(timeout)
        messages = ffi.new("struct mk_message[]", min(limit, BATCH_RECORDS))
        records: list[Record] = []
        while len(records) < limit:
            step = min(limit - len(records), BATCH_RECORDS)
            count = lib.mk_py_peek(self._open(), messages, step, BATCH_BYTES, until)
            if count == -errno.EINTR:
                continue
            if count < 0:
                if records or (at_once and count == -errno.EAGAIN):
                    break
                if count == -errno.ENOMSG:
                    return IPI_WAITS
                self._failures.fail(count, timeout=timeout)
            records += [Record(ffi.buffer(m.payload, m.length)[:], m.type, m.subtype, m.id) for m in messages[0:count]]
            lib.mk_py_release(self._rx)
            until = AT_ONCE  # the rest is what is there already
        return records

    def peek(
        self,
        timeout: float | None,
        *,
        seen: Callable[[Any], object] | None = None,
        interrupted: Callable[[], object] | None = None,
    ) -> View:
        """A read-only view of the next record's payload; given back when its block ends well.

        `seen` gets its header; `interrupted` is called to take IPIs that were raised before it.
        """

        def take() -> tuple[Any, int]:
            until = deadline(timeout)
            message = self._messages
            self.done()
            code = lib.mk_py_peek(self._open(), message, 1, BATCH_BYTES, until)
            while code in (-errno.EINTR, -errno.ENOMSG):
                if code == -errno.ENOMSG and interrupted is not None:
                    interrupted()
                code = lib.mk_py_peek(self._open(), message, 1, BATCH_BYTES, until)
            if code < 0:
                self._failures.fail(code, timeout=timeout)
            if seen is not None:
                seen(message[0])
            return message[0].payload, message[0].length

        return View(take, self._give, readonly=True)

    def peek_elements(self, limit: int, size: int, timeout: float | None) -> View:
        """A read-only view of up to `limit` elements of `size` bytes."""

        def take() -> tuple[Any, int]:
            pointer, count = self._take_elements(limit, timeout, at_once=False)
            return pointer, count * size

        return View(take, self._give, readonly=True)

    def receive_elements(
        self, limit: int, size: int, into: memoryview, timeout: float | None, *, at_once: bool = False
    ) -> int:
        """Copy up to `limit` elements into `into` (bytes), waiting for the first only. Returns how many."""
        done = 0
        while done < limit:
            pointer, count = self._take_elements(limit - done, timeout, at_once=at_once or done > 0, optional=done > 0)
            if not count:
                break
            into[done * size : (done + count) * size] = ffi.buffer(ffi.cast("char *", pointer), count * size)
            lib.mk_py_release(self._rx)
            done += count
        return done

    def _take_elements(
        self, limit: int, timeout: float | None, *, at_once: bool, optional: bool = False
    ) -> tuple[Any, int]:
        until = AT_ONCE if at_once else deadline(timeout)
        elements = ffi.new("const void **")
        count = lib.mk_py_peek_elements(self._open(), limit, elements, until)
        while count == -errno.EINTR:
            count = lib.mk_py_peek_elements(self._open(), limit, elements, until)
        if count < 0:
            if optional or (at_once and count == -errno.EAGAIN):
                return elements[0], 0
            self._failures.fail(count, timeout=timeout)
        return elements[0], count

    def _give(self, ended_well: bool) -> None:
        if self._rx is None:
            return
        if ended_well:
            lib.mk_py_release(self._rx)
        else:
            lib.mk_py_unpeek(self._rx)

    def take_ipi(self) -> tuple[int, int] | None:
        """The lowest pending vector and how often it was raised since the last time; None: there is none."""
        vector = ffi.new("unsigned *")
        count = ffi.new("uint64_t *")
        code = lib.mk_py_take_ipi(self._open(), vector, count)
        if code < 0:
            self._failures.fail(code)
        return (vector[0], count[0]) if code else None

    def mask(self, vector: int, *, masked: bool) -> None:
        """Hold a vector back (it goes on counting), or let it through again."""
        code = lib.mk_py_mask(self._open(), vector, masked) if 0 <= vector < lib.MK_VECTORS else -errno.EINVAL
        if code == -errno.EINVAL:
            raise ValueError(f"vector {vector}: there are 0 to {lib.MK_VECTORS - 1}")
        if code:
            self._failures.fail(code)

    def wait(self, timeout: float | None, *, until: int | None = None) -> None:
        """Wait for a record, an element, an IPI, or the sender's end."""
        _wait(self._open() and self._end, self._failures, timeout, until)

    @property
    def ready(self) -> bool:
        """Whether `wait` would return at once. No system call."""
        return bool(lib.mk_end_ready(self.end))

    def settle(self) -> None:
        """Bring `fileno` up to date after the other end of the same link has waited on the socket that they share."""
        lib.mk_py_settle(self.end)

    def fileno(self) -> int:
        """A descriptor that is readable while something is unread, or the sender is gone."""
        return _event(self._open() and self._end, self._failures)

    def call_peer(self, name: str) -> None:
        """What the other end is called in errors from now on."""
        self._failures.peer = name

    def count_in(self, counters: Any) -> None:
        """Count in a struct mk_counters, which must outlive this end, instead of privately."""
        lib.mk_py_counters(self.end, counters)

    @property
    def end(self) -> Any:
        """The C end, for a wait set."""
        return self._open() and self._end

    def view(self) -> Any:
        """What the core knows of this end (struct mk_py_view)."""
        self._open()
        return self._failures.view()

    @property
    def peer_closed(self) -> bool:
        """Whether the other side closed its end itself; a process that died did not."""
        return bool(lib.mk_py_peer_closed(self.end))

    @property
    def closed(self) -> bool:
        """Whether this end was closed here."""
        return self._rx is None

    @property
    def here(self) -> bool:
        """Whether it is this process that claimed it, and not the one it was forked from."""
        return bool(self._failures.view().claimed_here)

    def close(self) -> None:
        """Close this end. Idempotent.

        Raises:
            NotOwner: another thread is using it, or a view of it is still open.
        """
        if self._rx is None:
            return
        if lib.mk_py_enter(self._end) == -errno.EBUSY:
            self._failures.fail(-errno.EBUSY)
        rx, self._rx = self._rx, None
        lib.mk_receiver_close(rx)

    def _open(self) -> Any:
        if self._rx is None:
            raise Closed("this receiver was closed here")
        return self._rx


def _claim(claim: Any, kind: str, fd: int, counters: Any, object_kind: Any) -> Any:
    out = ffi.new(kind)
    why = ffi.new("uint32_t *")
    code = claim(out, fd, counters, why)
    if code == -errno.EPERM:
        raise NotOwner("this end was claimed already: it belongs to whoever used it first")
    if code:
        raise refusal(code, why[0], ffi.new("struct mk_object *"), object_kind)
    return out[0]


def _attach(attach: Any, end: Any, fd: int, owned: bool, socket_fd: int, pidfd: int, kind: Any) -> None:
    why = ffi.new("uint32_t *")
    code = attach(end, fd, owned, socket_fd, pidfd, why)
    if code:
        raise refusal(code, why[0], ffi.new("struct mk_object *"), kind)


def _wait(end: Any, failures: _Failures, timeout: float | None, until: int | None = None) -> None:
    if until is None:
        until = deadline(timeout)
    code = lib.mk_py_wait(end, until)
    while code == -errno.EINTR:
        code = lib.mk_py_wait(end, until)
    if code:
        failures.fail(code, timeout=timeout)


def _event(end: Any, failures: _Failures) -> int:
    fd: int = lib.mk_py_event(end)
    if fd < 0:
        failures.fail(fd)
    return fd
