"""A link in asyncio. What `Link.arecv`, `asend` and `arequest` do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from multikernel.errors import Closed
from multikernel.shm.aio import done, tasks_of
from multikernel.shm.waiting import AT_ONCE

from .messages import REQUEST, Message

if TYPE_CHECKING:
    from multikernel.shm.lane_receiver import LaneReceiver
    from multikernel.shm.lane_sender import LaneSender

    from .inbox import Inbox

T = TypeVar("T")


class AsyncSide:
    """The tasks that use a link: one that receives, one that sends, and any number with requests under way.

    Args:
        sender: of the link.
        receiver: of the link; what wakes one end may be read by the other, as both have one socket.
        inbox: of the link.
        verdict_is_out: whether the host has said what became of the peer, when it has been gone for so many seconds.
    """

    def __init__(
        self, sender: LaneSender, receiver: LaneReceiver, inbox: Inbox, verdict_is_out: Callable[[float], bool]
    ) -> None:
        self._sender = sender
        self._receiver = receiver
        self._inbox = inbox
        self._verdict_is_out = verdict_is_out
        self._sending = tasks_of(sender)
        self._lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self.heard: Callable[[], object] | None = None
        """Called after each call of the receiving end, for who serves it besides."""
        inbox.on_sorted = tasks_of(receiver).wake  # one task may take what another waits for

    async def receive(self) -> Message:
        """The next message."""
        return await self._done(lambda: self._inbox.next(AT_ONCE), self._receiver)

    async def send(self, payload: Any, type_: int, subtype: int, id_: int, *, alone: bool = True) -> None:
        """Send one message, as soon as there is room."""
        await self._done(
            lambda: self._sender.try_send(payload, type_, subtype, id_=id_) or None, self._sender, alone=alone
        )

    async def request(self, payload: Any, type_: int, subtype: int, id_: int, timeout: float | None) -> Message:  # noqa: ASYNC109 as everywhere here
        """Send a message and wait for its reply; builtin TimeoutError."""
        async with asyncio.timeout(timeout):
            with self._inbox.expecting(id_ | REQUEST) as reply:
                async with self._turns():
                    await self.send(payload, type_, subtype, id_ | REQUEST, alone=False)
                return await self._done(reply, self._receiver, alone=False)

    def _turns(self) -> asyncio.Lock:
        """Requests take turns to send: the lane may have no room, and all would wake for it each time."""
        loop = asyncio.get_running_loop()
        if self._lock is None or self._lock[0] is not loop:
            self._lock = loop, asyncio.Lock()
        return self._lock[1]

    def settle(self) -> None:
        """The receiving end has read the socket: what was the sending one's may have been there."""
        if self._sending and not self._sender.closed:
            self._sender.settle()
        if self.heard is not None:
            self.heard()

    async def _done(self, attempt: Callable[[], T | None], lane: LaneSender | LaneReceiver, *, alone: bool = True) -> T:
        def attempt_and_settle() -> T | None:
            try:
                return attempt()
            finally:
                if lane is self._receiver:
                    self.settle()
                elif not self._receiver.closed:
                    self._receiver.settle()

        try:
            return await done(attempt_and_settle, lane, alone=alone)
        except Closed:
            begin = time.monotonic()
            # The host writes its page and rings nobody.
            while not (lane.closed or self._verdict_is_out(time.monotonic() - begin)):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            raise
