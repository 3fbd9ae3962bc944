"""The zygote of a host, whichever it is by now: in a persistent machine, one that was killed is started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from typing import TYPE_CHECKING

from multikernel.errors import MultikernelError, from_wire
from multikernel.host import interpreter, log
from multikernel.host.wire import Wire
from multikernel.shm.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from multikernel.host.rundir import RunDir
    from multikernel.shm.channel import Document

STARTS_WITHIN = 30.0
"""Seconds that a zygote may take to be up."""

_ENDS_WITHIN = 5.0  # seconds, after its instances are gone
_MOST_QUEUED = 1 << 16  # documents that wait for it: while it starts, all that it is to keep
_ON_THEIR_WAY = 1 << 24  # bytes of them that are its own already, and are not lost with us; or what the system allows
_LONGEST_PAUSE = 5.0  # seconds between two zygotes that did not start


class ZygoteLost(MultikernelError):
    """The zygote was killed before it did what it was asked for; another is started."""


class Nursery:
    """Sends to the zygote, and starts another when it is gone.

    Args:
        channel: to the first one, owned from here on.
        pid: of that.
        rundir: the machine's, whose lock the next one gets.
        persistent: whether there is a next one.
        heard: called with what a zygote says, and the descriptors that came with it.
        lost: called when one is gone, with the reason, if it is known.
        renewed: called when the next one was started: what is sent to it now it reads, though this host be killed.
    """

    def __init__(
        self,
        channel: Channel,
        pid: int,
        rundir: RunDir,
        *,
        persistent: bool,
        heard: Callable[[Document, list[int]], None],
        lost: Callable[[Exception | None], None],
        renewed: Callable[[], None],
    ) -> None:
        self.pid = pid
        """Of the zygote; 0 while there is none."""
        self._rundir = rundir
        self._persistent = persistent
        self._heard, self._lost, self._renewed = heard, lost, renewed
        self._loop = asyncio.get_running_loop()
        self._up = asyncio.Event()
        self._failed = 0  # that have ended before they were up, one after the other
        self._closed = False
        self._begun = False  # the first has been up: until then the machine is none, and its maker is told
        self._unprepared: MultikernelError | None = None  # why the last one could not do what it is to do ahead
        self._pidfd = -1
        self._wire = self._listen(channel)

    @property
    def is_up(self) -> bool:
        """Whether there is one that serves."""
        return self._up.is_set()

    async def ready(self) -> None:
        """Wait until there is one that is up.

        Raises:
            MultikernelError: there was none for too long.
        """
        try:
            async with asyncio.timeout(STARTS_WITHIN):
                await self._up.wait()
        except TimeoutError:
            raise MultikernelError(
                f"the zygote, which starts instances, is not up after {STARTS_WITHIN:g} s; {self._rundir.log_path} may "
                "say why"
            ) from None
        if self._unprepared is not None:
            raise self._unprepared
        if self._closed:
            raise MultikernelError("the zygote, which starts instances, has ended, and so does the machine")

    def send(self, document: Document, fds: Sequence[int] = ()) -> None:
        """Send to the zygote, with copies of `fds`; to none, if there is none. Raises as `Wire.send` does."""
        self._wire.send(document, fds)

    async def close(self) -> None:
        """End the zygote, and what it has started; return when it has ended. Twice is fine."""
        self._closed = True
        self._up.set()
        if not self._wire.closed:
            with contextlib.suppress(MultikernelError, OSError):
                self._wire.send({"verb": "end"})
        self._wire.close()
        if self._pidfd >= 0:
            try:
                await self._end(self._pidfd)
            finally:
                self._let_go()

    async def _end(self, pidfd: int) -> None:
        """Wait for its end, which comes with the end of file of its channel; kill it if it does not."""
        ended = self._loop.create_future()
        self._loop.add_reader(pidfd, lambda: None if ended.done() else ended.set_result(None))
        try:
            await asyncio.wait([ended], timeout=_ENDS_WITHIN)
            if not ended.done():
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                await ended
        finally:
            self._loop.remove_reader(pidfd)
        with contextlib.suppress(ChildProcessError):  # it was another's child, or is reaped
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)  # noqa: ASYNC222 - it has ended

    def _listen(self, channel: Channel) -> Wire:
        """Hear a zygote that was started just now, or that has started us."""
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(self.pid)
        if _is_at_its_end(channel):  # then that pid, if there is such a process, may be another's
            self._let_go()
        channel.widen(_ON_THEIR_WAY)
        return Wire(channel, self._receive, self._on_lost, _MOST_QUEUED)

    def _let_go(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pidfd, self.pid = -1, 0

    def _receive(self, document: Document, fds: list[int]) -> None:
        if document.get("push") == "unprepared":
            self._unprepared = from_wire(document["failed"])
            if self._begun:
                log.write(str(self._unprepared))
            self._up.set()
            return
        if document.get("push") != "up":
            self._heard(document, fds)
            return
        self._failed = 0
        self._begun = True
        self._unprepared = None
        self._up.set()

    def _on_lost(self, reason: Exception | None) -> None:
        was_up = self._up.is_set()
        self._lost(reason)
        if not self._persistent or self._closed or (self._unprepared is not None and not self._begun):
            self._closed = True
            self._up.set()  # whoever waits for one is told that there is none
            return
        log.write(f"the zygote (pid {self.pid}) has ended{f': {reason}' if reason else ''}; another is started")
        self._up.clear()
        self._failed += not was_up
        if reason is not None and self._pidfd >= 0:  # it lives, and says what no zygote says
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._let_go()
        self._loop.call_later(min(_LONGEST_PAUSE, 0.1 * 2**self._failed) if self._failed else 0, self._start)

    def _start(self) -> None:
        if self._closed:
            return
        ours, theirs = Channel.pair()
        try:
            self.pid = interpreter.start("zygote", [theirs.fileno(), self._rundir.lock], 2)
        except (OSError, MultikernelError) as error:
            log.write(f"cannot start a zygote: {error}")  # theirs is closed now, so that ours is at its end: again
        finally:
            theirs.close()
        self._wire = self._listen(ours)
        self._renewed()


def _is_at_its_end(channel: Channel) -> bool:
    poll = select.poll()
    poll.register(channel, 0)
    return bool(poll.poll(0))
