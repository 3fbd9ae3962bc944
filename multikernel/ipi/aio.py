"""A link in asyncio. What `Link.arecv`, `asend` and `arequest` do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from multikernel.errors import Closed
from multikernel.shm.aio import done, tasks_of
from multikernel.shm.lane import PeerChanged
from multikernel.shm.waiting import AT_ONCE

from .messages import REQUEST, Message
from .once import once

if TYPE_CHECKING:
    from multikernel.shm.lane_receiver import LaneReceiver
    from multikernel.shm.lane_sender import LaneSender

    from .inbox import Inbox
    from .peer import Peer

T = TypeVar("T")


class AsyncSide:
    """The tasks that use a link: one that receives, one that sends, and any number with requests under way.

    Args:
        sender: of the link.
        receiver: of the link; what wakes one end may be read by the other, as both have one socket.
        inbox: of the link.
        peer: of the link.
    """

    def __init__(self, sender: LaneSender, receiver: LaneReceiver, inbox: Inbox, peer: Peer) -> None:
        self._sender = sender
        self._receiver = receiver
        self._inbox = inbox
        self._peer = peer
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
        sending = once(lambda: self._sender.try_send(payload, type_, subtype, id_=id_) or None)
        await self._done(sending, self._sender, alone=alone)

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

        while True:
            self._peer.settle()
            try:
                return await done(attempt_and_settle, lane, alone=alone)
            except PeerChanged:
                self._peer.changed(wait=False)
            except Closed:
                if lane.closed or not await self._goes_on(lane):
                    raise

    async def _goes_on(self, lane: LaneSender | LaneReceiver) -> bool:
        """As `Peer.goes_on`: the host writes its page and rings nobody."""
        gone = time.monotonic()
        while not lane.closed and self._peer.outlook(gone) == "unknown":  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return not lane.closed and self._peer.goes_on(wait=False)
