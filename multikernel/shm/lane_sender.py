"""The sending end of a lane: records, elements and IPIs go in."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from multikernel._core import ffi, lib
from multikernel.errors import Closed, MultikernelError

from .lane import LaneEnd, PeerChanged
from .waiting import AT_ONCE, deadline

_FIELD_NAMES = re.compile(":[^:]*:")
"""What a buffer's format says beside types: `T{d:Open:}` holds no objects."""


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
    if "O" in _FIELD_NAMES.sub("", view.format):
        raise TypeError("a message is bytes; this holds references to Python objects: pickle them")
    return ffi.from_buffer(view), view.nbytes


def _pieces(payload: Any) -> Sequence[Any]:
    return payload if isinstance(payload, (list, tuple)) else (payload,)


class LaneSender(LaneEnd):
    """The sending end of a lane that this process has claimed. Arguments as for `LaneEnd`."""

    __slots__ = ("_tx",)

    role = "sender"
    _own_kind = "producer"
    _peer_kind = "consumer"

    def _new_slot(self) -> Any:
        return ffi.gc(ffi.new("struct mk_sender **"), lib.mk_py_drop_sender)

    def _claim(self, fd: int, why: Any) -> int:
        return int(lib.mk_sender_claim(self._slot, fd, ffi.NULL, why))

    def _attach(self, fd: int, owned: bool, socket_fd: int, pidfd: int, why: Any) -> int:
        return int(lib.mk_sender_attach(self._tx, fd, owned, socket_fd, pidfd, why))

    def _succeed(self, fd: int, why: Any) -> int:
        return int(lib.mk_py_sender_succeed(self._tx, fd, why))

    def _resume(self, fd: int, pidfd: int, why: Any) -> int:
        return int(lib.mk_py_sender_resume(self._tx, fd, pidfd, why))

    def _end_of_slot(self) -> Any:
        self._tx = self._slot[0]
        return lib.mk_py_sender_end(self._tx)

    @property
    def address(self) -> int:
        """Where the core's end lies, for the extension's calls."""
        return int(ffi.cast("uintptr_t", self._tx))

    def send(
        self, payload: Any, type_: int, subtype: int, timeout: float | None, *, id_: int = 0, until: int | None = None
    ) -> None:
        """Send one record, waiting for room. id_: 0: the lane numbers it; until: the deadline, None: the time-out's."""
        if isinstance(payload, (list, tuple)):
            self.send_many([payload], type_, subtype, timeout, id_=id_, until=until)
            return
        buffer, length = as_buffer(payload)
        if until is None:
            until = deadline(timeout)
        code = lib.mk_py_send(self._open(), type_, subtype, id_, buffer, length, until)
        while code == -errno.EINTR:
            code = lib.mk_py_send(self._open(), type_, subtype, id_, buffer, length, until)
        if code:
            self.fail(code, timeout=timeout, length=length)

    def try_send(self, payload: Any, type_: int, subtype: int, *, id_: int = 0) -> bool:
        """Send one record if there is room at once."""
        if isinstance(payload, (list, tuple)):
            return self.send_many([payload], type_, subtype, None, id_=id_, at_once=True) == 1
        buffer, length = as_buffer(payload)
        code = lib.mk_py_send(self._open(), type_, subtype, id_, buffer, length, AT_ONCE)
        if code and code != -errno.EAGAIN:
            self.fail(code, length=length)
        return not code

    def send_many(
        self,
        payloads: Sequence[Any],
        type_: int,
        subtype: int,
        timeout: float | None,
        *,
        id_: int = 0,
        at_once: bool = False,
        until: int | None = None,
    ) -> int:
        """Send all, publishing many at a time. Errors carry `.sent`.

        Args:
            payloads: each a buffer, or a list or tuple of buffers, which become one record.
            type_: of all.
            subtype: of all.
            timeout: seconds for all of them.
            id_: of the first, the others count up from it; 0: the lane numbers them.
            at_once: do not wait: as many as there is room for.
            until: the deadline; None: by the time-out.
        """
        if until is None:
            until = AT_ONCE if at_once else deadline(timeout)
        records = [_pieces(payload) for payload in payloads]
        buffers = [as_buffer(piece) for pieces in records for piece in pieces]
        starts = [ffi.from_buffer(buffer) if type(buffer) is bytes else buffer for buffer, _ in buffers]
        pointers = ffi.new("const void *[]", starts)
        lengths = ffi.new("uint64_t[]", [length for _, length in buffers])
        counts = ffi.new("uint32_t[]", [len(pieces) for pieces in records])
        count = len(records)
        done = ffi.new("struct mk_py_batch *")  # how far it has come
        while done.records < count:
            first = id_ and id_ + done.records
            lib.mk_py_send_many(self._open(), type_, subtype, first, pointers, lengths, counts, count, until, done)
            length = 0
            if done.records < count:
                length = sum(lengths[done.pieces : done.pieces + counts[done.records]])
            if not self._goes_on(done.why, done.records, length, timeout, at_once=at_once):
                break
        return int(done.records)

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
        if not at_once or code != -errno.EAGAIN:
            self.fail_many(code, sent, timeout=timeout, length=length)
        return False

    def fail_many(self, code: int, sent: int, *, timeout: float | None, length: int) -> NoReturn:
        """As `fail`, for a batch of which `sent` went out before."""
        error = self.error(code, timeout=timeout, length=length)
        if isinstance(error, (MultikernelError, PeerChanged)):
            error.sent = sent
        raise error

    def reservation(
        self, n: int, type_: int, subtype: int, timeout: float | None, *, id_: int = 0, element: int = 0
    ) -> tuple[Callable[[], tuple[Any, int]], Callable[[bool], None]]:
        """What a `View` of room for `n` bytes, or `n` elements, takes and gives; sent when its block ends well."""
        length = n * element if element else n
        if length >= 1 << 63:
            self.fail(-errno.EMSGSIZE, length=length)

        def take() -> tuple[Any, int]:
            slot = ffi.new("void **")
            until = deadline(timeout)
            try:
                code = lib.mk_py_reserve(self._open(), n, slot, until)
                while code == -errno.EINTR:
                    code = lib.mk_py_reserve(self._open(), n, slot, until)
            except BaseException:
                self.recover()
                raise
            if code:
                self.fail(code, timeout=timeout, length=length)
            return slot[0], length

        def give(ended_well: bool) -> None:
            if ended_well:
                code = lib.mk_py_commit(self._tx, n, type_, subtype, id_)
            else:
                code = lib.mk_py_abandon(self._tx)
            if code:
                self.fail(code)

        return take, give

    def recover(self) -> None:
        """After an exception in the middle of a call: nothing is reserved, the end is free."""
        lib.mk_py_recover_sender(self._tx)

    def ipi(self, vector: int) -> None:
        """Raise a vector at the receiver. Never waits."""
        code = lib.mk_py_ipi(self._open(), vector) if 0 <= vector < lib.MK_VECTORS else -errno.EINVAL
        if code == -errno.EINVAL:
            raise ValueError(f"vector {vector}: there are 0 to {lib.MK_VECTORS - 1}")
        if code:
            self.fail(code)

    def _open(self) -> Any:
        if self._closed:
            raise Closed("this sender was closed here")
        return self._tx
