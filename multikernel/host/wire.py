"""A channel in the host's event loop: nothing here ever waits for the other side."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from typing import TYPE_CHECKING

from multikernel.errors import Closed
from multikernel.shm.channel import Channel, Document, ProtocolError, close_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_QUEUED = 2048
"""Documents that wait for a peer to read. One that lets more pile up does not read any more: it is dropped."""

_TURN = 16  # documents taken from one peer before the others have theirs


class Wire:
    """One end of a channel, served by the running event loop.

    Args:
        channel: owned from here on.
        receive: called with each document and its descriptors, which are then the callee's to close.
        lost: called once, when the other side is gone, sends what nobody may send, or does not read; with the reason,
            None for the first. The wire is closed by then. Not called after `close`.
        most: documents that may wait for it to read.
    """

    def __init__(
        self,
        channel: Channel,
        receive: Callable[[Document, list[int]], None],
        lost: Callable[[Exception | None], None],
        most: int = MOST_QUEUED,
    ) -> None:
        self.channel = channel
        self._most = most
        self.closed = False
        self._receive = receive
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[Document, list[int]]] = deque()
        self._kept_up = asyncio.Event()
        self._kept_up.set()
        self._loop.add_reader(channel, self._on_readable)

    def send(self, document: Document, fds: Sequence[int] = ()) -> None:
        """Send now, or as soon as the peer reads, with copies of `fds`. A peer that is gone or stuck is `lost`.

        Raises:
            MessageTooLarge, ValueError, TypeError: the document is none, as `Channel.send` has it. Nothing was sent.
            OSError: no more descriptors, open or on their way, for this user. Nothing was sent.
        """
        if self.closed:
            return
        try:
            if self._queue or not self.channel.send(document, fds, wait=False):
                self._queue_up(document, fds)
        except Closed:
            self._lose(None)

    async def keeps_up(self, within: float) -> bool:
        """Wait up to `within` seconds until no document has to wait for the peer to read; whether that is so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._kept_up.wait()
        return self._kept_up.is_set()

    @property
    def queued(self) -> int:
        """How many documents wait for the peer to read."""
        return len(self._queue)

    def take_rest(self) -> None:
        """Take all that is there now, without limit: for a peer that has ended and adds nothing any more."""
        while not self.closed and self._take_one():
            pass

    def close(self) -> None:
        """Close the channel; what waits to be sent is dropped. Closing twice is fine."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self.channel)
        self._loop.remove_writer(self.channel)
        self.channel.close()
        for _, fds in self._queue:
            close_all(fds)
        self._queue.clear()
        self._kept_up.set()

    def _on_readable(self) -> None:
        for _ in range(_TURN):
            if self.closed or not self._take_one():
                return

    def _take_one(self) -> bool:
        try:
            received = self.channel.receive(timeout=0)
        except (Closed, ProtocolError) as error:
            self._lose(None if isinstance(error, Closed) else error)
            return False
        if received is None:
            return False
        self._receive(*received)
        return True

    def _queue_up(self, document: Document, fds: Sequence[int]) -> None:
        if len(self._queue) >= self._most:
            self._lose(Closed(f"the other side has not read its last {len(self._queue)} documents"))
            return
        copies: list[int] = []
        try:
            copies.extend(os.dup(fd) for fd in fds)
        except OSError:
            close_all(copies)
            raise
        self._queue.append((document, copies))
        self._kept_up.clear()
        if len(self._queue) == 1:
            self._loop.add_writer(self.channel, self._on_writable)

    def _on_writable(self) -> None:
        try:
            while self._queue:
                document, fds = self._queue[0]
                if not self.channel.send(document, fds, wait=False):
                    return
                self._queue.popleft()
                close_all(fds)
        except OSError as error:
            self._lose(None if isinstance(error, Closed) else error)
            return
        self._loop.remove_writer(self.channel)
        self._kept_up.set()

    def _lose(self, reason: Exception | None) -> None:
        if not self.closed:
            self.close()
            self._lost(reason)
