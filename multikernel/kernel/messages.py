"""Iterations over the messages of all links: what `Kernel.messages` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multikernel.shm.waiting import deadline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from multikernel.ipi.messages import Message

    from .links import Links


class Messages:
    """One iteration; `for` and `next`, or `async for` where main is asynchronous.

    Args:
        links: whose messages.
        copy: as for `Kernel.messages`.
        timeout: likewise.
    """

    __slots__ = ("_copy", "_iter", "_links", "_timeout")

    def __init__(self, links: Links, *, copy: bool, timeout: float | None) -> None:
        self._links, self._copy, self._timeout = links, copy, timeout
        self._iter: Iterator[Message] | None = None

    def __iter__(self) -> Iterator[Message]:
        if self._iter is None:
            self._iter = self._each()
        return self._iter

    def __next__(self) -> Message:
        return next(iter(self))

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._links.aio().messages(copy=self._copy, timeout=self._timeout)

    def _each(self) -> Iterator[Message]:
        links, copy = self._links, self._copy
        links.check_may_wait("`async for message in kernel.messages()`")
        until = deadline(self._timeout)
        while True:
            taken = links.take_next(copy=copy)
            if taken is not None:
                link, message, give_back = taken
                try:
                    yield message
                except BaseException:  # the loop was left: a view ends, a copy is dealt with when more is asked for
                    if not copy:
                        give_back()
                    raise
                del link, message
                give_back()
                until = deadline(self._timeout)
                links.host.serve()
                links.loop.timers.run()
                if links.host.halting:
                    return
                continue
            links.host.serve()
            if links.host.halting or not links.loop.sleep(until):
                return
