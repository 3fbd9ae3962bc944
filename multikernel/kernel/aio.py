"""The loop of an asynchronous image: `async def main(kernel)` under asyncio, with all that the other loop serves.

No thread stands behind it. What can come (a word of the host, something by a link, a timer) has a descriptor or a time
in the event loop, and an instance to which nothing comes is not woken.

A link's descriptor is readable as long as there is something unread, so it is watched only until something is found
there that is for somebody else to take (`messages`, `Link.arecv`); once that is done it is watched again. IPIs behind a
message that nobody takes wait with it.
"""

from __future__ import annotations

import asyncio
import os
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Self

from multikernel.errors import Closed, from_wire
from multikernel.shm.aio import EAGER
from multikernel.shm.channel import close_all
from multikernel.shm.waiting import deadline

if TYPE_CHECKING:
    from multikernel.ipi.link import Link
    from multikernel.ipi.messages import Message
    from multikernel.shm.pages import StatusPage

    from .links import Links

_HOST_SAYS_IT_WITHIN = 5.0  # seconds after the time-out of a request; the host says first that it is over


def run(status: StatusPage, main: Coroutine[Any, Any, Any]) -> Any:
    """As `asyncio.run`, by a loop whose sleep and whose work can be told from outside."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(_Selector(status))) as runner:
        return runner.run(main)


class _Selector(selectors.EpollSelector):
    """Says in the status page when the loop runs. A loop that hangs in a task is then not taken for one that sleeps."""

    def __init__(self, status: StatusPage) -> None:
        super().__init__()
        self._status = status

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait until something is readable or writable; the event loop's sleep."""
        if timeout is None or timeout > 0:
            self._status.awake(False)
        try:
            return super().select(timeout)
        finally:
            self._status.beat()
            self._status.awake(True)


class AsyncLoop:
    """What serves an image in asyncio.

    Args:
        links: of the instance.
        serve: what is done around each wait: the host, the heartbeat, timers.
    """

    def __init__(self, links: Links, serve: Callable[[], None]) -> None:
        self._links, self._host, self._timers = links, links.host, links.loop.timers
        self.serve = serve
        """What is done around each wait."""
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        self._error: Exception | None = None
        self._follow: Callable[[Callable[[], None]], None] = self._host.change
        self._host_fds: list[int] = []  # of its lane and of its channel, as far as they are watched
        self._watched: dict[Link, int] = {}  # a descriptor of its own for each: the link's may be somebody else's here
        self._paused: set[Link] = set()
        self._waiting: set[asyncio.Future[None]] = set()
        # Requests to the host that are under way. Else a word of the host comes with a ring of its lane.
        self._asking = 0
        self._alarm: asyncio.TimerHandle | None = None

    async def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Be the loop of `main`, until that returns. An error of a handler ends it, as in the other loop."""
        self._host.change = self._change_host
        self._listen()
        self._loop.call_soon(self._guard, self._host.ready)  # when main waits for the first time
        for link in self._links:  # that were taken over
            self.watch(link)
        self._timers.on_change = self._set_alarm
        self._set_alarm()
        try:
            result = await main
        except asyncio.CancelledError:
            if self._error is None:
                raise
        else:
            if self._error is None:
                return result
        finally:
            self._timers.on_change = None
            if self._alarm is not None:
                self._alarm.cancel()
            self._host.change = self._follow
            self._deafen()
            for link in list(self._watched):
                self.forget(link)
        raise self._error

    def messages(self, *, copy: bool, timeout: float | None) -> AsyncIterator[Message]:
        """As `Kernel.messages`."""
        return _Messages(self, self._links, copy=copy, timeout=timeout)

    async def ask(
        self,
        document: dict[str, Any],
        fds: list[int],
        timeout: float,  # noqa: ASYNC109 it travels with the request
    ) -> tuple[dict[str, Any], list[int]]:
        """A request to the host, as `HostSide.ask`."""
        answered: asyncio.Future[tuple[dict[str, Any], list[int]]] = self._loop.create_future()

        def answer(document: dict[str, Any], fds: list[int]) -> None:
            if answered.done():  # nobody waits for it any more
                close_all(fds)
            else:
                answered.set_result((document, fds))

        self._host.begin(document, fds, answer)
        self._asking += 1
        self._listen()
        try:
            async with asyncio.timeout(timeout + _HOST_SAYS_IT_WITHIN):
                said, got = await answered
        finally:
            self._asking -= 1
            self._listen()
        if "failed" in said:
            close_all(got)
            raise from_wire(said["failed"])
        return said["ok"], got

    def watch(self, link: Link) -> None:
        """Serve this link from now on."""
        self._watched[link] = os.dup(link.in_asyncio(lambda: self._heard(link)))
        self._resume(link)

    def forget(self, link: Link) -> None:
        """The link is about to be closed."""
        fd = self._watched.pop(link, -1)
        self._paused.discard(link)
        if fd >= 0:
            self._loop.remove_reader(fd)
            os.close(fd)

    async def news(self, until: int) -> bool:
        """Wait until `take_next` may find something, or a halt was asked for. False: the time is up."""
        for link in list(self._paused):
            self._resume(link)
        future = self._loop.create_future()
        self._waiting.add(future)
        try:
            async with asyncio.timeout_at(until / 1e9 if until >= 0 else None):  # the loop's clock is the same one
                await future
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(future)
        return True

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def _on_link(self, link: Link) -> None:
        """Its descriptor is readable: handlers of IPIs run; what else there is waits for who takes it."""
        self.serve()
        # A timer may have closed it, or one of the handlers.
        if link in self._watched and link.serve_interrupts() and link in self._watched:
            self._loop.remove_reader(self._watched[link])
            self._paused.add(link)
            self._wake()

    def _heard(self, link: Link) -> None:
        """Somebody has asked the link for something: what it had may be taken, or put aside for `messages`."""
        if link in self._paused:
            self._resume(link)
        elif self._waiting and link.waits:
            self._wake()

    def _resume(self, link: Link) -> None:
        self._paused.discard(link)
        self._loop.add_reader(self._watched[link], self._guard, self._on_link, link)

    def _listen(self) -> None:
        """Hear the host: by its lane, and by the control channel as long as an answer is to come."""
        self._deafen()
        self._hear(self._host.lane.lane.fileno(), self._on_host)
        if self._asking:
            self._hear(self._host.control.fileno(), self._on_document)

    def _hear(self, fd: int, call: Callable[[], None]) -> None:
        self._loop.add_reader(fd, self._guard, call)
        self._host_fds.append(fd)

    def _deafen(self) -> None:
        while self._host_fds:
            self._loop.remove_reader(self._host_fds.pop())

    def _change_host(self, change: Callable[[], None]) -> None:
        """Hear what `change` puts in the place of lane and channel.

        Those are closed by it, so nothing of them may be left in the event loop: their numbers are soon others'.
        """
        self._deafen()
        self._follow(change)
        self._listen()

    def _on_document(self) -> None:
        try:
            self._host.take_documents()
        except Closed:  # the end of the host, which the lane tells too
            self._loop.remove_reader(self._host_fds.pop())

    def _on_host(self) -> None:
        self.serve()
        if self._host.halting:
            self._wake()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        due = self._timers.next_due()
        self._alarm = None if due < 0 else self._loop.call_at(due / 1e9, self._guard, self._on_alarm)

    def _on_alarm(self) -> None:
        try:
            self.serve()
        finally:
            self._set_alarm()

    def _guard(self, call: Callable[..., None], *arguments: Any) -> None:
        """Have an error of a handler end `main`: nobody else would see it."""
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001 - it is raised from `main`
            self._error = error
            if self._main is not None:
                self._main.cancel()


class _Messages:
    """An iteration. No generator: one that was left ends some time later, and a view of the ring is to end at once."""

    def __init__(self, loop: AsyncLoop, links: Links, *, copy: bool, timeout: float | None) -> None:
        self._loop, self._links = loop, links
        self._copy, self._timeout = copy, timeout
        self._give_back: Callable[[], None] | None = None
        self._number = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        self._done()
        host, until = self._links.host, deadline(self._timeout)
        self._loop.serve()
        if self._number and self._number % EAGER == 0:
            await asyncio.sleep(0)
        while not (host.halting and self._number):
            taken = self._links.take_next(copy=self._copy)
            if taken is not None:
                self._number += 1
                self._give_back = taken[2]
                return taken[1]
            if host.halting or not await self._loop.news(until):
                break
        raise StopAsyncIteration

    def _done(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    def __del__(self) -> None:
        if not self._copy:  # a copy is dealt with when more is asked for
            self._done()
