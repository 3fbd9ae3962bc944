"""`machine.events()`: state changes, by a connection of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from typing import TYPE_CHECKING, Self

from multikernel.client.connection import join
from multikernel.errors import Closed, NotOwner, Timeout, from_wire
from multikernel.host import address
from multikernel.host.rundir import RunDir
from multikernel.kernel.event import Event
from multikernel.shm.channel import close_all

if TYPE_CHECKING:
    from types import TracebackType

    from multikernel.shm.channel import Channel

_ANSWERS_WITHIN = 10.0  # seconds for the host to answer


class Events:
    """What happens to the instances of a machine, from when this was made: `for event in events`, or `async for`.

    It ends when the host does: with the machine or, in a persistent one, until another host has taken over. One that is
    read too slowly misses events: the next one says how many. One thread's at a time.

    Args:
        machine: its name.

    Raises:
        NotFound, Closed, Timeout: it is gone, or does not answer.
    """

    def __init__(self, machine: str) -> None:
        self._machine = machine
        self._pid = os.getpid()
        self._channel = address.connect(RunDir(machine))
        try:
            _, page = join(self._channel, machine, _ANSWERS_WITHIN)
            close_all(page)
            self._channel.send({"verb": "events", "id": 1})
            answer, _ = self._channel.receive(timeout=_ANSWERS_WITHIN) or ({}, [])
            if "ok" not in answer:
                raise from_wire(answer.get("failed", {}))
        except BaseException:
            self._channel.close()
            raise
        self._finalizer = weakref.finalize(self, _close, self._channel)

    def recv(self, timeout: float | None = None) -> Event:
        """The next event.

        Args:
            timeout: seconds to wait; None: no limit.

        Raises:
            Timeout: none has come.
            Closed: the host has ended, or this was closed.
        """
        event = self._take(timeout)
        if event is None:
            raise Timeout(f"nothing has happened on machine {self._machine!r} within {timeout:g} s", timeout=timeout)
        return event

    def fileno(self) -> int:
        """Readable when there is an event, or the end."""
        return self._open().fileno()

    def close(self) -> None:
        """Listen no more. Twice is fine."""
        self._finalizer()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        try:
            return self.recv()
        except Closed:
            raise StopIteration from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        loop = asyncio.get_running_loop()
        try:
            while (event := self._take(0)) is None:
                news = asyncio.Event()
                fd = self.fileno()
                loop.add_reader(fd, news.set)
                try:
                    await news.wait()
                finally:
                    loop.remove_reader(fd)
        except Closed:
            raise StopAsyncIteration from None
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, timeout: float | None) -> Event | None:
        channel = self._open()
        try:
            received = channel.receive() if timeout is None else channel.receive(timeout=timeout)
        except Timeout:
            return None
        return None if received is None else Event.from_json(received[0]["event"])

    def _open(self) -> Channel:
        if os.getpid() != self._pid:
            raise NotOwner(f"these events belong to process {self._pid}, and this is a fork of it: listen anew")
        if not self._finalizer.alive:
            raise Closed("these events were closed here")
        return self._channel


def _close(channel: Channel) -> None:
    with contextlib.suppress(OSError):
        channel.close()
