"""`Sender`: the sending end of a ring."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self

from multikernel._core import SendCalls, lib
from multikernel.errors import Closed, NotOwner

from .format import Format, as_bytes
from .handles import Handle, adopt, claim
from .lane import describe
from .lane_sender import LaneSender
from .views import View
from .waiting import WaitPolicy, policy_number


class Sender(SendCalls):
    """The sending end of a `Ring`. The first call that uses it claims it for this process.

    One thread at a time: use by two at once raises NotOwner in the second, and corrupts nothing. So does every use of a
    claimed end in a process forked since.
    """

    def __init__(self, handle: Handle, format_: Format, wait: WaitPolicy) -> None:
        self._handle = handle
        self._format = format_
        self._wait = wait
        self._lane: LaneSender | None = None
        self._closed = False

    @classmethod
    def from_fds(
        cls, fds: Sequence[int], *, dtype: Any = None, shape: int | tuple[int, ...] = (), wait: WaitPolicy = "adaptive"
    ) -> Sender:
        """An end from what `detach` gave, in a program without a common parent. The descriptors are its own then.

        Args:
            fds: what `detach` returned, by whatever numbers they have here; not inheritable from now on.
            dtype: as the ring was made with; a dtype of another size shows at the first use (ValueError).
            shape: as the ring was made with.
            wait: how a waiting call spends the time.

        Raises:
            ValueError: not three descriptors, or a policy, dtype or shape that cannot be. They are still the caller's.
            OSError: one of them is not open.
        """
        policy_number(wait)
        format_ = Format.of(dtype, shape)
        return cls(adopt(fds), format_, wait)

    def detach(self) -> tuple[int, int, int]:
        """Give up this end: its descriptors are the caller's, to pass on. NotOwner if it was claimed."""
        if self._lane is not None:
            raise NotOwner("this sender is claimed by this process: it can no longer be passed on")
        return self._handle.give_up()

    def _send(self, payload: Any, timeout: float | None) -> None:
        if self._format.size:
            element = as_bytes(self._format.check(payload, many=False))
            self._ready().send_elements(element, 1, self._format.size, timeout)
        else:
            self._ready().send(payload, lib.MK_MSG_USER, 0, timeout)

    def _try_send(self, payload: Any) -> bool:
        if self._format.size:
            element = as_bytes(self._format.check(payload, many=False))
            return self._ready().send_elements(element, 1, self._format.size, None, at_once=True) == 1
        return self._ready().try_send(payload, lib.MK_MSG_USER, 0)

    def _send_many(self, messages: Any, timeout: float | None, *, at_once: bool = False) -> int:
        if self._format.size:
            array = self._format.check(messages, many=True)
            elements = as_bytes(array)
            return self._ready().send_elements(elements, len(array), self._format.size, timeout, at_once=at_once)
        if isinstance(messages, (bytes, bytearray, memoryview, str)):
            raise TypeError(f"send_many takes several messages, not one {type(messages).__name__}: put it into a list")
        return self._ready().send_many(list(messages), lib.MK_MSG_USER, 0, timeout, at_once=at_once)

    def _try_send_many(self, messages: Any) -> int:
        return self._send_many(messages, None, at_once=True)

    def _fail(self, code: int, timeout: float | None, length: int) -> NoReturn:
        """Raise what a negative result of the core means."""
        self._ready().fail(code, timeout=timeout, length=length)

    def _fail_many(self, code: int, sent: int, timeout: float | None, length: int) -> NoReturn:
        """As `_fail`, for a batch of which `sent` went out before."""
        self._ready().fail_many(code, sent, timeout=timeout, length=length)

    def reserve(self, n: int, timeout: float | None = None) -> View:
        """Room in the ring to write a message in place: `with tx.reserve(8) as view: view[:] = ...`.

        Args:
            n: bytes; on a ring with a dtype, elements, >= 1.
            timeout: seconds to wait for room.

        Returns:
            A block whose value is a writable memoryview of bytes. What stands in it is sent at the end of the block; an
            exception in the block sends nothing.

        Raises:
            MessageTooLarge, TimeoutError, Closed: as `send`, from the beginning of the block; Closed also from its end.
            BufferError: at the end of the block, if an array or slice made from the view is alive; nothing was sent.
        """
        least = 1 if self._format.size else 0
        if n < least:
            raise ValueError(f"reserve({n}): the least is {least}")
        lane = self._ready()
        take, give = lane.reservation(n, lib.MK_MSG_USER, 0, timeout, element=self._format.size)
        return View(take, give, lane.recover, readonly=False)

    async def asend(self, payload: Any) -> None:
        """As `send`, in asyncio: other tasks run while the ring is full. One task at a time (NotOwner)."""
        from .aio import done

        await done(lambda: self.try_send(payload) or None, self._ready())

    def fileno(self) -> int:
        """A descriptor for event loops: readable while there is the room that the last `try_send` lacked.

        Also while the receiver is gone. It belongs to this end.
        """
        return self._ready().fileno()

    @property
    def capacity(self) -> int:
        """Bytes that the ring holds."""
        return self._ready().capacity

    @property
    def free(self) -> int:
        """Bytes that are free now, as this end sees it."""
        return self._ready().free

    @property
    def closed(self) -> bool:
        """Whether this end was closed here, or the receiver is gone."""
        return self._closed or (self._lane is not None and bool(self._lane.view().gone))

    def close(self) -> None:
        """Close this end. The receiver still gets all that was sent, then Closed. Idempotent."""
        if self._lane is not None:
            self._lane.close()
        self._closed = True
        self._bind(0)
        self._handle.close()

    def _ready(self) -> LaneSender:
        lane = self._lane
        return lane if lane is not None else self._claim()

    def _claim(self) -> LaneSender:
        if self._closed:
            raise Closed("this sender was closed here")
        self._lane = claim(
            self._handle,
            "producer",
            self._format.size,
            lambda own: LaneSender(own, "the receiver", wait=self._wait),
        )
        elements = self._format.for_calls()
        if elements is not None:
            self._bind(self._lane.address, *elements)
        return self._lane

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        lane = getattr(self, "_lane", None)
        if lane is not None and lane.here:
            _warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            lane.abandon()

    def __reduce__(self) -> tuple[Callable[..., Sender], tuple[Any, ...]]:
        if self._lane is not None:
            raise NotOwner("this sender is claimed by this process: it can no longer be passed on")
        return Sender, (self._handle, self._format, self._wait)

    def __repr__(self) -> str:
        return describe("Sender", self._format, self._lane, closed=self._closed)
