"""`Receiver`: the receiving end of a ring."""

from __future__ import annotations

import errno
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self

from multikernel._core import RecvCalls
from multikernel.errors import Closed, NotOwner

from .format import Format, as_bytes
from .handles import Handle, adopt, claim
from .lane import describe
from .lane_receiver import LaneReceiver
from .views import View, Views, receive_into
from .waiting import AT_ONCE, WaitPolicy, deadline, policy_number


class Receiver(RecvCalls):
    """The receiving end of a `Ring`. The first call that receives claims it for this process.

    Iterating gives messages until the sender is gone; Closed where this end was closed here. One thread at a time, as
    with `Sender`.
    """

    def __init__(self, handle: Handle, format_: Format, wait: WaitPolicy) -> None:
        self._handle = handle
        self._format = format_
        self._wait = wait
        self._lane: LaneReceiver | None = None
        self._closed = False

    @classmethod
    def from_fds(
        cls, fds: Sequence[int], *, dtype: Any = None, shape: int | tuple[int, ...] = (), wait: WaitPolicy = "adaptive"
    ) -> Receiver:
        """An end from what `detach` gave. See `Sender.from_fds`."""
        policy_number(wait)
        format_ = Format.of(dtype, shape)
        return cls(adopt(fds), format_, wait)

    def detach(self) -> tuple[int, int, int]:
        """Give up this end: its descriptors are the caller's, to pass on. NotOwner if it was claimed."""
        if self._lane is not None:
            raise NotOwner("this receiver is claimed by this process: it can no longer be passed on")
        return self._handle.give_up()

    def _recv(self, timeout: float | None) -> Any:
        if self._format.size:
            return self._elements(1, deadline(timeout), timeout)[0]
        lane = self._ready()
        record = lane.receive(deadline(timeout))
        if record is None:
            lane.fail(-errno.ETIMEDOUT, timeout=timeout)
        return record.payload

    def _try_recv(self) -> Any:
        if self._format.size:
            array = self._elements(1, AT_ONCE, None, optional=True)
            return array[0] if len(array) else None
        record = self._ready().receive(AT_ONCE)
        return None if record is None else record.payload

    def _recv_many(self, limit: int, timeout: float | None, *, at_once: bool = False) -> Any:
        if limit < 1:
            raise ValueError(f"recv_many({limit}): the least is 1")
        until = AT_ONCE if at_once else deadline(timeout)
        if self._format.size:
            return self._elements(limit, until, timeout, optional=at_once)
        lane = self._ready()
        records = lane.receive_many(limit, until)
        if not records and not at_once:
            lane.fail(-errno.ETIMEDOUT, timeout=timeout)
        return [record.payload for record in records]

    def _try_recv_many(self, limit: int) -> Any:
        return self._recv_many(limit, None, at_once=True)

    def _next(self) -> Any:
        try:
            return self._recv(None)
        except Closed:
            if self._closed:  # here: nothing has come to its end
                raise
            raise StopIteration from None

    def _fail(self, code: int, timeout: float | None, _length: int) -> NoReturn:
        """Raise what a negative result of the core means."""
        self._ready().fail(code, timeout=timeout)

    def _elements(self, limit: int, until: int, timeout: float | None, *, optional: bool = False) -> Any:
        """An array of up to `limit` elements; of none only if `optional`."""
        arrays = []

        def place(count: int) -> memoryview:
            arrays.append(self._format.array(count))
            return memoryview(as_bytes(arrays[0]))

        lane = self._ready()
        if not lane.take_elements(limit, until, place):
            if not optional:
                lane.fail(-errno.ETIMEDOUT, timeout=timeout)
            arrays.append(self._format.array(0))
        return arrays[0]

    def _recv_into(self, buffer: Any, timeout: float | None) -> int:
        if self._format.size:
            room, lane = self._format.room(buffer), self._ready()
            most = len(room) // self._format.size
            count = lane.take_elements(most, deadline(timeout), lambda n: room[: n * self._format.size])
            if not count:
                lane.fail(-errno.ETIMEDOUT, timeout=timeout)
            return count
        return receive_into(self.peek(timeout), buffer)

    def peek(self, timeout: float | None = None, *, limit: int = 1) -> View:
        """The next message where it lies: `with rx.peek() as view: ...`. Its space is given back when the block ends.

        Args:
            timeout: seconds to wait.
            limit: on a ring with a dtype, most elements to see, >= 1.

        Returns:
            A block whose value is a read-only memoryview of bytes. An exception in the block takes nothing: the message
            is next again.

        Raises:
            TimeoutError, Closed: as `recv`, from the beginning of the block.
            BufferError: at the end of the block, if an array or slice made from the view is alive. Nothing was taken.
        """
        if limit < 1:
            raise ValueError(f"peek(limit={limit}): the least is 1")
        lane = self._ready()

        def take() -> tuple[Any, int]:
            until = deadline(timeout)
            if self._format.size:
                pointer, count = lane.look_at_elements(limit, until)
                if not count:
                    lane.fail(-errno.ETIMEDOUT, timeout=timeout)
                return pointer, count * self._format.size
            message = lane.look(until)
            if message is None:
                lane.fail(-errno.ETIMEDOUT, timeout=timeout)
            return message.payload, message.length

        return lane.view_of(take)

    def peek_many(self, limit: int, timeout: float | None = None) -> Views:
        """Several messages where they lie: `with rx.peek_many(64) as views: ...`. As `peek`; waits for the first only.

        Args:
            limit: most messages to see, >= 1; never more than 256, or than lie in 256 KiB.
            timeout: seconds to wait for the first.

        Returns:
            A block whose value is a list of read-only memoryviews of bytes, oldest first. At its end the space of all
            is given back; an exception in the block takes none.

        Raises:
            TypeError: a ring with a dtype: `peek(limit=...)` shows its elements in one view.
            TimeoutError, Closed, BufferError: as `peek`.
        """
        if self._format.size:
            raise TypeError(f"peek_many is for records; this ring carries {self._format}: use peek(limit={limit})")
        if limit < 1:
            raise ValueError(f"peek_many({limit}): the least is 1")
        lane = self._ready()
        spans: list[tuple[int, int]] = []

        def take() -> tuple[Any, int]:
            found = lane.look_at_many(limit, deadline(timeout))
            if not found:
                lane.fail(-errno.ETIMEDOUT, timeout=timeout)
            start, _ = found[0]
            spans[:] = [(int(payload - start) % lane.capacity, length) for payload, length in found]
            return start, sum(spans[-1])

        return Views(lane.view_of(take), lambda whole: [whole[at : at + length] for at, length in spans])

    def fileno(self) -> int:
        """A descriptor for event loops, level-triggered: readable while a message is unread or the sender is gone.

        It belongs to this end.
        """
        return self._ready().fileno()

    async def arecv(self) -> Any:
        """As `recv`, in asyncio: other tasks run while the ring is empty. One task at a time (NotOwner)."""
        from .aio import done

        return await done(self.try_recv, self._ready())

    def __aiter__(self) -> AsyncIterator[Any]:
        from .aio import each

        return each(self.arecv)

    def waits_on(self) -> tuple[LaneReceiver]:
        """The lane, claimed, for `wait`."""
        return (self._ready(),)

    @property
    def capacity(self) -> int:
        """Bytes that the ring holds."""
        return self._ready().capacity

    @property
    def free(self) -> int:
        """Bytes that are free now, as this end sees it."""
        return self._ready().free

    def __len__(self) -> int:
        """How many messages wait. Walks over them: some nanoseconds each."""
        return self._ready().waiting()

    def __bool__(self) -> bool:
        """True: an end is not nothing for being empty."""
        return True

    @property
    def closed(self) -> bool:
        """Whether this end was closed here, or the sender is gone (unread messages may be left)."""
        return self._closed or (self._lane is not None and bool(self._lane.view().gone))

    def close(self) -> None:
        """Close this end: the sender gets Closed. Idempotent."""
        if self._lane is not None:
            self._lane.close()
        self._closed = True
        self._bind(0)
        self._handle.close()

    def _ready(self) -> LaneReceiver:
        lane = self._lane
        return lane if lane is not None else self._claim()

    def _claim(self) -> LaneReceiver:
        if self._closed:
            raise Closed("this receiver was closed here")
        self._lane = claim(
            self._handle,
            "consumer",
            self._format.size,
            lambda own: LaneReceiver(own, "the sender", wait=self._wait, ipis=False),
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

    def __reduce__(self) -> tuple[Callable[..., Receiver], tuple[Any, ...]]:
        if self._lane is not None:
            raise NotOwner("this receiver is claimed by this process: it can no longer be passed on")
        return Receiver, (self._handle, self._format, self._wait)

    def __repr__(self) -> str:
        return describe("Receiver", self._format, self._lane, closed=self._closed)
