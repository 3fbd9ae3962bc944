"""The sending end of a `Broadcast`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from multikernel._core import CastCalls, ffi, lib
from multikernel.errors import Closed, CorruptLane, MessageTooLarge, MultikernelError, NotOwner, Timeout

from .channel import Document, close_all
from .claimed import FanEnd
from .door import Door
from .lane_sender import as_buffer
from .objects import refused
from .waiting import AT_ONCE, WaitPolicy, deadline, policy_number

if TYPE_CHECKING:
    from .broadcast import Slow
    from .handles import Bundle

ROUNDS = 1000
"""A roster that has counted more receivers this often in a row, and none has come, is not one."""


class BroadcastSender(CastCalls, FanEnd):
    """The sending end of a `Broadcast`. The first call that uses it claims it for this process.

    Where there is no receiver, messages go to nobody. One thread at a time, as with `Sender`.
    """

    role = "sender of a broadcast"

    def __init__(self, bundle: Bundle, slow: Slow, wait: WaitPolicy) -> None:
        super().__init__(bundle)
        self._slow = slow
        self._wait = wait
        self._door: Door | None = None

    def _send(self, payload: Any, timeout: float | None) -> None:
        buffer, length = as_buffer(payload)
        code = self._put(buffer, length, deadline(timeout))
        if code:
            raise self._error(code, timeout, length)

    def _try_send(self, payload: Any) -> bool:
        buffer, length = as_buffer(payload)
        code = self._put(buffer, length, AT_ONCE)
        if code and code != -errno.EAGAIN:
            raise self._error(code, None, length)
        return not code

    def _put(self, buffer: Any, length: int, until: int) -> int:
        c = self._claimed()
        return self._call(lambda: lib.mk_py_broadcast_send_one(c, buffer, length, until))

    def _fail_to_send(self, code: int, timeout: float | None, length: int) -> NoReturn:
        """What a negative result of the core means, for the extension's calls."""
        raise self._error(code, timeout, length)

    def send_many(self, messages: Iterable[Any], timeout: float | None = None) -> int:
        """Send all messages, published many at a time. Returns how many.

        Args:
            messages: bytes-like each.
            timeout: seconds for all of them.

        Raises:
            TimeoutError, Closed, MessageTooLarge, CorruptLane: with `.sent`, how many went out before.
        """
        return self._send_many(messages, deadline(timeout), timeout)

    def try_send_many(self, messages: Iterable[Any]) -> int:
        """As `send_many`, without waiting: how many there was room for."""
        return self._send_many(messages, AT_ONCE, None)

    def _send_many(self, messages: Iterable[Any], until: int, timeout: float | None) -> int:
        if isinstance(messages, (bytes, bytearray, memoryview, str)):
            raise TypeError(f"send_many takes several messages, not one {type(messages).__name__}: put it into a list")
        buffers = [as_buffer(payload) for payload in messages]
        starts = [ffi.from_buffer(buffer) if type(buffer) is bytes else buffer for buffer, _ in buffers]
        pointers = ffi.new("const void *[]", starts)
        lengths = ffi.new("uint64_t[]", [length for _, length in buffers])
        done = ffi.new("int64_t *")
        c = self._claimed()
        code = self._call(lambda: lib.mk_py_broadcast_send(c, pointers, lengths, len(buffers), until, done))
        sent: int = done[0]
        if not code or (code == -errno.EAGAIN and until == AT_ONCE and timeout is None):
            return sent
        error = self._error(code, timeout, buffers[sent][1] if sent < len(buffers) else 0)
        if isinstance(error, MultikernelError):
            error.sent = sent
        raise error

    def _call(self, send: Callable[[], int]) -> int:
        """The result of `send`, made again after signals, and after new receivers were taken in."""
        try:
            for _ in range(ROUNDS):
                code = send()
                while code == -errno.EINTR:
                    code = send()
                if code != -errno.ENOTCONN:
                    return code
                self._take_in(self._c)
        except BaseException:
            lib.mk_py_broadcast_leave(self._c)
            raise
        raise CorruptLane("whoever made this broadcast counts receivers that never come")

    @property
    def receivers(self) -> int:
        """How many receivers there are now, claimed or not."""
        c = self._claimed()
        count = self._call(lambda: lib.mk_py_broadcast_receivers(c))
        if count < 0:
            raise self._error(count, None, 0)
        return count

    def _error(self, code: int, timeout: float | None, length: int) -> Exception:
        if code == -errno.EPIPE:
            return Closed("all receivers of this broadcast are gone, and there will be no more")
        if code in (-errno.ETIMEDOUT, -errno.EAGAIN):
            within = f" within {timeout:g} s" if timeout else ""
            return Timeout(f"the slowest receiver made no room{within}", timeout=timeout)
        if code == -errno.EMSGSIZE:
            limit = lib.mk_py_broadcast_longest(self._c)
            return MessageTooLarge(
                f"a message of {length} bytes never fits: this broadcast carries messages of up to {limit} bytes. "
                "Make it with a larger capacity, or send the message in pieces",
                length=length,
                limit=limit,
            )
        if code == -errno.EBADMSG:
            value = ffi.new("uint64_t *")
            number = lib.mk_py_broadcast_bad(self._c, value)
            return CorruptLane(
                f"receiver {number} wrote a tail that cannot be: {value[0]:#x}. It is cut off",
                what="tail",
                value=value[0],
                receiver=number,
            )
        try:
            self._fail(code)
        except Exception as error:  # noqa: BLE001 - the caller has something to add to it
            return error

    # --- claiming, and what comes by the door

    def _make(self, fds: tuple[int, ...]) -> Any:
        inside, producer, roster, maker = fds
        slot = ffi.gc(ffi.new("struct mk_py_broadcast **"), lib.mk_py_broadcast_drop)
        why = ffi.new("uint32_t *")
        door = Door.of(os.dup(inside))
        try:
            code = lib.mk_py_broadcast_claim(slot, producer, roster, maker, policy_number(self._wait), why)
            if code == -errno.EPERM:
                raise NotOwner("this sender was claimed already: it belongs to whoever used it first")
            if code:
                raise refused(code, why[0], producer, "producer")
        except BaseException:
            door.close()
            raise
        for fd in (inside, producer, roster):
            os.close(fd)
        self._door = door
        door.introduce()
        self._slot = slot
        self._bind(int(ffi.cast("uintptr_t", slot[0])))
        lib.mk_py_broadcast_leave(slot[0])
        return slot[0]

    def _take_in(self, c: Any) -> None:
        """Take in the receivers that have come by the door, after -ENOTCONN: the broadcast in C is this thread's."""
        try:
            if self._door is not None:
                for document, fds in self._door.arrivals():
                    self._take_one(c, document, fds)
            lib.mk_py_broadcast_caught_up(c)
        except Closed:  # nobody is outside any more: all that was on its way has come
            lib.mk_py_broadcast_caught_up(c)
            self._let_go()
        finally:
            lib.mk_py_broadcast_leave(c)

    def _take_one(self, c: Any, document: Document, fds: list[int]) -> None:
        number = document.get("receiver")
        why = ffi.new("uint32_t *")
        taken = False
        try:
            if type(number) is not int or not 0 <= number < 1 << 32 or len(fds) != 2:
                raise CorruptLane("what came by the broadcast's door is no receiver: dropped")
            code = lib.mk_py_broadcast_add(c, fds[0], fds[1], number, why)
            if code:
                raise refused(code, why[0], fds[0], "consumer")
            taken = True
        finally:
            close_all(fds[:1] if taken else fds)

    def _let_go(self) -> None:
        door, self._door = self._door, None
        if door is not None:
            door.close()

    def _close(self, c: Any) -> int:
        code: int = lib.mk_py_broadcast_close(c)
        if not code:
            self._bind(0)
        return code

    def __reduce__(self) -> tuple[Callable[..., BroadcastSender], tuple[Any, ...]]:
        return BroadcastSender, (*self._pass_on(), self._slow, self._wait)
