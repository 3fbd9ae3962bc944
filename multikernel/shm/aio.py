"""Ends in asyncio: `await rx.arecv()`, `await tx.asend(...)`, `async for message in rx`.

No thread stands behind it. A call is tried at once; where there is nothing, or no room, the end's descriptor goes into
the loop for as long as a task waits for it. A task that is cancelled had taken nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from multikernel.errors import Closed, NotOwner

T = TypeVar("T")


class End(Protocol):
    """What a task can wait for: a lane, or an end that is made of several."""

    @property
    def role(self) -> str:
        """What errors call it."""

    def fileno(self) -> int:
        """Readable while it has news."""

    def on_close(self, call: Callable[[], object]) -> None:
        """Call this when it has been closed here."""

    def not_on_close(self, call: Callable[[], object]) -> None:
        """Do not."""


EAGER = 64
"""Messages after which an `async for` lets other tasks run, if it has not had to wait."""


async def done(attempt: Callable[[], T | None], lane: End, *, alone: bool = True) -> T:
    """What `attempt()` gives, as soon as that is not None. It is tried again whenever `lane` has news.

    Args:
        attempt: a call that does not wait.
        lane: what it depends on.
        alone: whether it is an error if another task waits for this lane, being alone too.

    Raises:
        NotOwner: there is such a task, or one of another event loop.
    """
    result = attempt()
    if result is not None:
        return result
    tasks = tasks_of(lane)
    with tasks.joined(lane, alone=alone):
        while True:
            await tasks.news(lane)
            result = attempt()
            if result is not None:
                return result


async def each(attempt: Callable[[], Awaitable[T]]) -> AsyncIterator[T]:
    """One after the other, until `attempt` raises Closed."""
    for number in itertools.count(1):
        try:
            result = await attempt()
        except Closed:
            return
        yield result
        if number % EAGER == 0:
            await asyncio.sleep(0)


class Tasks:
    """Those that wait for one lane: all of one loop, and woken together."""

    __slots__ = ("_alone", "_fd", "_futures", "_joined", "_loop")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._joined = 0
        self._alone = False
        self._futures: set[asyncio.Future[None]] = set()  # of those that are asleep
        self._fd = -1

    def __bool__(self) -> bool:
        """Whether one is asleep."""
        return bool(self._futures)

    @contextmanager
    def joined(self, lane: End, *, alone: bool) -> Iterator[None]:
        """A block in which this task may sleep for news."""
        loop = asyncio.get_running_loop()
        if self._joined and (loop is not self._loop or (alone and self._alone)):
            who = "another task" if loop is self._loop else "a task of another event loop"
            raise NotOwner(f"{who} waits for this {lane.role} already: there can be one")
        self._loop = loop
        self._joined += 1
        self._alone |= alone
        try:
            yield
        finally:
            self._joined -= 1
            if alone:
                self._alone = False

    async def news(self, lane: End) -> None:
        """Sleep until there may be news: the lane has some, it was closed here, or `wake`."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if not self._futures:
            self._fd = lane.fileno()
            loop.add_reader(self._fd, self._wake_now)
            lane.on_close(self.wake)
        self._futures.add(future)
        try:
            await future
        finally:
            lane.not_on_close(self.wake)
            self._futures.discard(future)
            if not self._futures:
                self._leave_loop()

    def wake(self) -> None:
        """Wake those that are asleep, from whatever thread."""
        loop = self._loop
        if loop is None or not self._futures:
            return
        if asyncio._get_running_loop() is loop:
            self._wake_now()
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._wake_now)

    def _wake_now(self) -> None:
        futures, self._futures = self._futures, set()
        self._leave_loop()
        for future in futures:
            if not future.done():  # it was cancelled, and its task will see to that
                future.set_result(None)

    def _leave_loop(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0 and self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(fd)


_tasks: weakref.WeakKeyDictionary[End, Tasks] = weakref.WeakKeyDictionary()


def tasks_of(lane: End) -> Tasks:
    """The tasks that wait for a lane."""
    found = _tasks.get(lane)
    if found is None:
        found = _tasks[lane] = Tasks()
    return found
