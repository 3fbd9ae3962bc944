"""`FanReceiver`: what the receiving ends of mailboxes and of broadcasts that miss have in common."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from multikernel._core import FanCalls, ffi
from multikernel.errors import Closed

from .claimed import FanEnd
from .views import View, Views, receive_into
from .waiting import AT_ONCE, deadline

if TYPE_CHECKING:
    from .handles import Bundle


class FanReceiver(FanCalls, FanEnd):
    """A receiving end whose messages are looked at and then given back, by two calls into the core.

    Its `_look` begins a look and `_give` ends it; between the two the end is taken, as it is while a view is open.

    Args:
        bundle: what it takes to claim it.
        batch: most records that one look finds.
    """

    _peer: ClassVar[str]  # what errors call the other side

    def __init__(self, bundle: Bundle, batch: int) -> None:
        super().__init__(bundle)
        self._messages = ffi.new("struct mk_message[]", batch)

    def _look(self, limit: int, until: int) -> int:
        """Look at up to `limit` records, in `_messages`; 0 when there was none until the deadline."""
        raise NotImplementedError

    def _give(self, ended_well: bool) -> None:
        """End a look: without what was seen, or it is next again."""
        raise NotImplementedError

    def _recover(self) -> None:
        """As `_give(False)`, for when it is not known whether there was a look."""
        raise NotImplementedError

    def _offset(self, start: Any, payload: Any) -> int:
        """How far behind the first payload of a look another one lies."""
        return int(payload - start)

    def _over(self) -> bool:
        """Whether nobody is there who could send any more."""
        raise NotImplementedError

    def _waiting(self) -> int:
        """How many messages wait."""
        raise NotImplementedError

    def fileno(self) -> int:
        """A descriptor for event loops."""
        raise NotImplementedError

    # --- what the calls do where the extension does not

    def _recv(self, timeout: float | None) -> bytes:
        found: bytes = self._one(self._take(1, deadline(timeout)), timeout)
        return found

    def _try_recv(self) -> bytes | None:
        found = self._take(1, AT_ONCE)
        return found[0] if found else None

    def _recv_many(self, limit: int, timeout: float | None) -> list[bytes]:
        found = self._take_many(checked(limit), deadline(timeout))
        self._one(found, timeout)
        return found

    def _try_recv_many(self, limit: int) -> list[bytes]:
        return self._take_many(checked(limit), AT_ONCE)

    def _next(self) -> bytes:
        try:
            return self._recv(None)
        except Closed:
            if self._closed:
                raise
            raise StopIteration from None

    def _one(self, found: list[Any], timeout: float | None) -> Any:
        """The first of what was found; a Timeout if that is nothing."""
        if not found:
            self._nothing(timeout)
        return found[0]

    def _nothing(self, timeout: float | None) -> NoReturn:
        self._fail(-errno.ETIMEDOUT, timeout=timeout, peer=self._peer)

    def _take(self, limit: int, until: int) -> list[bytes]:
        """Up to `limit` messages, copied, of one look; [] when there was none until the deadline."""
        count = self._look(min(limit, len(self._messages)), until)
        if not count:
            return []
        try:
            found = [ffi.buffer(m.payload, m.length)[:] for m in self._messages[0:count]]
            self._give(True)
        except BaseException:
            self._recover()
            raise
        return found

    def _take_many(self, limit: int, until: int) -> list[bytes]:
        return self._take(limit, until)

    # --- views

    def peek(self, timeout: float | None = None) -> View:
        """The next message where it lies: `with rx.peek() as view: ...`. It is received when the block ends.

        Args:
            timeout: seconds to wait.

        Returns:
            A block whose value is a read-only memoryview of bytes. An exception in the block takes nothing: the message
            is next again. Until its end every other call on this end raises NotOwner.

        Raises:
            TimeoutError, Closed, CorruptLane: as `recv`, from the beginning of the block.
            BufferError: at the end of the block, if an array or slice made from the view is alive. Nothing was taken.
        """

        def take() -> tuple[Any, int]:
            if not self._look(1, deadline(timeout)):
                self._nothing(timeout)
            return self._messages[0].payload, self._messages[0].length

        return View(take, self._give, self._recover, readonly=True)

    def peek_many(self, limit: int, timeout: float | None = None) -> Views:
        """Several messages where they lie: `with rx.peek_many(64) as views: ...`. As `peek`; waits for the first only.

        Args:
            limit: most messages to see, >= 1; fewer are shown where they do not lie together.
            timeout: seconds to wait for the first.

        Returns:
            A block whose value is a list of read-only memoryviews of bytes, oldest first. At its end all are received;
            an exception in the block takes none.

        Raises:
            ValueError: `limit` is below 1.
            TimeoutError, Closed, CorruptLane, BufferError: as `peek`.
        """
        if limit < 1:
            raise ValueError(f"peek_many({limit}): the least is 1")
        spans: list[tuple[int, int]] = []

        def take() -> tuple[Any, int]:
            count = self._look(min(limit, len(self._messages)), deadline(timeout))
            if not count:
                self._nothing(timeout)
            try:
                found = [(ffi.cast("char *", m.payload), m.length) for m in self._messages[0:count]]
                start = found[0][0]
                spans[:] = [(self._offset(start, payload), length) for payload, length in found]
            except BaseException:
                self._recover()
                raise
            return start, sum(spans[-1])

        def cut(whole: memoryview) -> list[memoryview]:
            return [whole[at : at + length] for at, length in spans]

        return Views(View(take, self._give, self._recover, readonly=True), cut)

    def recv_into(self, buffer: Any, timeout: float | None = None) -> int:
        """Receive into memory of one's own. Copied once.

        Args:
            buffer: a writable contiguous buffer, at least as long as the next message.
            timeout: seconds to wait.

        Returns:
            Bytes of the message.

        Raises:
            TypeError, ValueError: not such a buffer, or too short for the next message, which stays.
            TimeoutError, Closed, CorruptLane: as `recv`.
        """
        return receive_into(self.peek(timeout), buffer)

    # --- what is known of it

    @property
    def closed(self) -> bool:
        """Whether this end was closed here, or nobody is left who could send (unread messages may be)."""
        return self._closed or (self._c is not None and self._over())

    def __len__(self) -> int:
        """How many messages wait. Walks over them: some nanoseconds each."""
        return self._waiting()

    def __bool__(self) -> bool:
        """True: an end is not nothing for being empty."""
        return True

    async def arecv(self) -> bytes:
        """As `recv`, in asyncio: other tasks run while nothing is there. One task at a time (NotOwner)."""
        from .aio import done

        return await done(self.try_recv, self)

    def __aiter__(self) -> AsyncIterator[bytes]:
        from .aio import each

        return each(self.arecv)


def checked(limit: int) -> int:
    """The limit of a `recv_many`."""
    if limit < 1:
        raise ValueError(f"recv_many({limit}): the least is 1")
    return limit
