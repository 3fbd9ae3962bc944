"""The receiving end of a lane: records, elements and IPIs come out."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, NamedTuple

from multikernel._core import ffi, lib
from multikernel.errors import Closed

from .lane import LaneEnd
from .views import View
from .waiting import AT_ONCE, WaitPolicy

BATCH_RECORDS = 256
BATCH_BYTES = 256 * 1024
"""A batch is taken in steps of at most these, so that the sender gets room back while the rest is copied."""

IPI_WAITS = object()
"""What comes instead of a record when an IPI was raised before the next one: take a round of them, then ask again."""


class Record(NamedTuple):
    """A record as it came: what its header says, and a copy of its payload."""

    payload: bytes
    type: int
    subtype: int
    id: int


class LaneReceiver(LaneEnd):
    """The receiving end of a lane that this process has claimed.

    Args:
        fd: as for `LaneEnd`.
        peer: as for `LaneEnd`.
        wait: as for `LaneEnd`.
        ipis: whether IPIs come out of it; without, all vectors are masked.
    """

    __slots__ = ("_again", "_held", "_messages", "_rx")

    role = "receiver"
    _own_kind = "consumer"
    _peer_kind = "producer"

    def __init__(self, fd: int, peer: str, *, wait: WaitPolicy = "adaptive", ipis: bool) -> None:
        super().__init__(fd, peer, wait=wait)
        self._messages = ffi.new("struct mk_message[]", 1)  # used by whoever is in the end, so by one call at a time
        self._held = False  # what was received last is not given back yet
        self._again = False  # a predecessor had seen messages that are still to come
        if not ipis:
            lib.mk_py_mask_all(self._rx)

    def _new_slot(self) -> Any:
        return ffi.gc(ffi.new("struct mk_receiver **"), lib.mk_py_drop_receiver)

    def _claim(self, fd: int, why: Any) -> int:
        return int(lib.mk_receiver_claim(self._slot, fd, ffi.NULL, why))

    def _attach(self, fd: int, owned: bool, socket_fd: int, pidfd: int, why: Any) -> int:
        return int(lib.mk_receiver_attach(self._rx, fd, owned, socket_fd, pidfd, why))

    def _succeed(self, fd: int, why: Any) -> int:
        self._again = True
        return int(lib.mk_py_receiver_succeed(self._rx, fd, why))

    def _resume(self, fd: int, pidfd: int, why: Any) -> int:
        return int(lib.mk_py_receiver_resume(self._rx, fd, pidfd, why))

    def _end_of_slot(self) -> Any:
        self._rx = self._slot[0]
        return lib.mk_py_receiver_end(self._rx)

    @property
    def address(self) -> int:
        """Where the core's end lies, for the extension's calls."""
        return int(ffi.cast("uintptr_t", self._rx))

    # --- records

    @property
    def again(self) -> bool:
        """Whether the record that was looked at last had been handed out by an earlier incarnation of this end."""
        if self._again:
            self._again = bool(lib.mk_py_redelivered(self._rx))
        return self._again

    def skip(self) -> dict[str, int] | None:
        """Give the next record back unseen: its type, subtype, id and length; None: there is none."""
        message = self._messages
        code = lib.mk_py_skip(self._open(), message)
        if code < 0 and code not in (-errno.EAGAIN, -errno.EPIPE):
            self.fail(code)
        if code:
            return None
        found = message[0]
        return {"type": found.type, "subtype": found.subtype, "id": found.id, "length": found.length}

    def say_seen(self) -> None:
        """What was looked at is handed out where it lies: should this process die, its successor has it `again`."""
        lib.mk_py_say_seen(self._rx)

    def receive(self, until: int, *, hold: bool = False) -> Any:
        """The next `Record`; None when there was none until the deadline; `IPI_WAITS`.

        With `hold` its space is not given back until `done` or the next call: should this process die before, it was
        not received.
        """
        message = self.look(until)
        if message is None or message is IPI_WAITS:
            return message
        try:
            record = Record(ffi.buffer(message.payload, message.length)[:], message.type, message.subtype, message.id)
            if hold:
                self._held = True
                lib.mk_py_hold(self._rx)
            else:
                lib.mk_py_release(self._rx)
        except BaseException:
            self.recover()
            raise
        return record

    def look(self, until: int) -> Any:
        """As `receive`, where the record lies: its struct mk_message. The end is taken until `give`."""
        self.done()
        message = self._messages
        try:
            code = lib.mk_py_peek(self._open(), message, 1, BATCH_BYTES, until)
            while code == -errno.EINTR:
                code = lib.mk_py_peek(self._open(), message, 1, BATCH_BYTES, until)
        except BaseException:
            self.recover()
            raise
        if code > 0:
            return message[0]
        if code == -errno.ENOMSG:
            return IPI_WAITS
        if code not in (-errno.EAGAIN, -errno.ETIMEDOUT):
            self.fail(code)
        return None

    def look_at_many(self, limit: int, until: int) -> list[tuple[Any, int]]:
        """As `look`, for up to `limit` records: where each payload lies and its length; [] when there was none."""
        self.done()
        messages = ffi.new("struct mk_message[]", min(limit, BATCH_RECORDS))
        try:
            code = lib.mk_py_peek(self._open(), messages, len(messages), BATCH_BYTES, until)
            while code == -errno.EINTR:
                code = lib.mk_py_peek(self._open(), messages, len(messages), BATCH_BYTES, until)
            found = [(ffi.cast("char *", m.payload), m.length) for m in messages[0 : max(code, 0)]]
        except BaseException:
            self.recover()
            raise
        if code < 0 and code not in (-errno.EAGAIN, -errno.ETIMEDOUT):
            self.fail(code)
        return found

    def waiting(self) -> int:
        """How many messages wait to be received."""
        count: int = lib.mk_py_waiting(self._open())
        if count < 0:
            self.fail(count)
        return count

    def give(self, ended_well: bool) -> None:
        """Give the end back after `look`, with the space of what was seen; or without: it is next again."""
        code = lib.mk_py_release(self._rx) if ended_well else lib.mk_py_unpeek(self._rx)
        if code:
            self.fail(code)

    def done(self) -> None:
        """Give back what was received with `hold`, if that was not done yet."""
        if not self._held or self._closed:
            return
        self._held = False
        code = lib.mk_py_done(self._open())
        if code:
            self.fail(code)

    def recover(self) -> None:
        """After an exception in the middle of a call: what it had looked at is next again, the end is free."""
        self._held = False
        lib.mk_py_recover_receiver(self._rx)

    def receive_many(self, limit: int, until: int) -> Any:
        """Up to `limit` records, waiting for the first only; [] when there was none; `IPI_WAITS`."""
        self.done()
        messages = ffi.new("struct mk_message[]", min(limit, BATCH_RECORDS))
        records: list[Record] = []
        while len(records) < limit:
            step = min(limit - len(records), BATCH_RECORDS)
            try:
                count = lib.mk_py_peek(self._open(), messages, step, BATCH_BYTES, until)
                if count > 0:
                    records += [
                        Record(ffi.buffer(m.payload, m.length)[:], m.type, m.subtype, m.id) for m in messages[0:count]
                    ]
                    lib.mk_py_release(self._rx)
            except MemoryError:
                self.recover()
                if records:  # they are given out; who asks again meets the error again
                    break
                raise
            except BaseException:
                self.recover()
                raise
            if count > 0:
                until = AT_ONCE  # the rest is what is there already
            elif count != -errno.EINTR:
                if records or count in (-errno.EAGAIN, -errno.ETIMEDOUT):
                    break
                if count == -errno.ENOMSG:
                    return IPI_WAITS
                self.fail(count)
        return records

    # --- elements

    def take_elements(self, limit: int, until: int, place: Callable[[int], memoryview]) -> int:
        """Copy up to `limit` elements, as many as there are; how many, 0 when there was none until the deadline.

        Args:
            limit: most to take.
            until: deadline for the first.
            place: gets their number, returns the bytes to copy them to.
        """
        elements, count = self.look_at_elements(limit, until)
        if count:
            try:
                target = place(count)
                target[:] = ffi.buffer(ffi.cast("char *", elements), len(target))
                lib.mk_py_release(self._rx)
            except BaseException:
                self.recover()
                raise
        return count

    def look_at_elements(self, limit: int, until: int) -> tuple[Any, int]:
        """Up to `limit` elements where they lie, and how many. The end is taken until `give`, unless there are none."""
        elements = ffi.new("const void **")
        limit = min(limit, lib.MK_CAPACITY_MAX)
        try:
            count = lib.mk_py_peek_elements(self._open(), limit, elements, until)
            while count == -errno.EINTR:
                count = lib.mk_py_peek_elements(self._open(), limit, elements, until)
        except BaseException:
            self.recover()
            raise
        if count < 0 and count not in (-errno.EAGAIN, -errno.ETIMEDOUT):
            self.fail(count)
        return elements[0], max(count, 0)

    def view_of(self, take: Callable[[], tuple[Any, int]]) -> View:
        """A read-only view of what `take` looks at: pointer and length; given back when its block ends well."""
        return View(take, self.give, self.recover, readonly=True)

    # --- IPIs

    def take_ipi(self, first: int = 0) -> tuple[int, int] | None:
        """The lowest pending vector from `first` up, and how often it was raised since the last time; None: no other.

        A round takes each vector once: begin with 0, go on from behind the one that came, until None.
        """
        vector = ffi.new("unsigned *")
        count = ffi.new("uint64_t *")
        code = lib.mk_py_take_ipi(self._open(), first, vector, count)
        if code < 0:
            self.fail(code)
        return (vector[0], count[0]) if code else None

    def mask(self, vector: int, *, masked: bool) -> None:
        """Hold a vector back (it goes on counting), or let it through again."""
        code = lib.mk_py_mask(self._open(), vector, masked) if 0 <= vector < lib.MK_VECTORS else -errno.EINVAL
        if code == -errno.EINVAL:
            raise ValueError(f"vector {vector}: there are 0 to {lib.MK_VECTORS - 1}")
        if code:
            self.fail(code)

    def _open(self) -> Any:
        if self._closed:
            raise Closed("this receiver was closed here")
        return self._rx
