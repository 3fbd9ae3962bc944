"""The sending end of a lane: records, elements and IPIs go in."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

from multikernel._core import ffi, lib
from multikernel.errors import Closed, MultikernelError

from .lane import LaneEnd
from .waiting import AT_ONCE, deadline


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
    if "O" in view.format:
        raise TypeError("a message is bytes; this holds references to Python objects: pickle them")
    return ffi.from_buffer(view), view.nbytes


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

    def _end_of_slot(self) -> Any:
        self._tx = self._slot[0]
        return lib.mk_py_sender_end(self._tx)

    def send(self, payload: Any, type_: int, subtype: int, id_: int, timeout: float | None) -> None:
        """Send one record, waiting for room."""
        buffer, length = as_buffer(payload)
        until = deadline(timeout)
        code = lib.mk_py_send(self._open(), type_, subtype, id_, buffer, length, until)
        while code == -errno.EINTR:
            code = lib.mk_py_send(self._open(), type_, subtype, id_, buffer, length, until)
        if code:
            self.fail(code, timeout=timeout, length=length)

    def try_send(self, payload: Any, type_: int, subtype: int, id_: int) -> bool:
        """Send one record if there is room at once."""
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
        count = len(buffers)
        why = ffi.new("int *")
        sent = 0
        while sent < count:
            sent += lib.mk_py_send_many(
                self._open(), type_, subtype, id_ + sent, pointers + sent, lengths + sent, count - sent, until, why
            )
            length = buffers[sent][1] if sent < count else 0
            if not self._goes_on(why[0], sent, length, timeout, at_once=at_once):
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
        error = self.error(code, timeout=timeout, length=length)
        if isinstance(error, MultikernelError):
            error.sent = sent
        raise error

    def reservation(
        self, n: int, type_: int, subtype: int, next_id: Callable[[], int], timeout: float | None, *, element: int = 0
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
                code = lib.mk_py_commit(self._tx, n, type_, subtype, next_id())
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
