"""Where an instance sleeps: for its links, its host, its timers and a descriptor, all in one call of the core."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from multikernel._core import failure, ffi, lib
from multikernel.errors import NotOwner
from multikernel.shm.wait import wait_set

from .timers import Timers, earlier

if TYPE_CHECKING:
    from multikernel.ipi.link import Link
    from multikernel.shm.pages import StatusPage

    from .hostside import HostSide


class Loop:
    """What is slept for, and what is done when it comes. Nothing here takes a message.

    Args:
        host: served before and after each sleep.
        status: the instance's page, for its heartbeat.
    """

    def __init__(self, host: HostSide, status: StatusPage) -> None:
        self.timers = Timers()
        self._host = host
        self._status = status
        self._set = wait_set([host.lane.end])
        host.change = self._change_host
        self._pairs: dict[Link, Any] = {}  # a wait set of a link and the host lane, for waits on one link
        self._quiet: tuple[Sequence[Link], Any] = ((), None)  # links without messages, and a wait set of them

    def add(self, link: Link) -> None:
        """Sleep for this link too."""
        code = lib.mk_wait_set_add(self._set, link.receiving_end)
        if code:
            raise failure(code, "waiting for a link")

    def remove(self, link: Link) -> None:
        """The link is about to be closed."""
        lib.mk_wait_set_remove(self._set, link.receiving_end)
        self._pairs.pop(link, None)
        if link in self._quiet[0]:
            self._quiet = ((), None)

    def serve(self) -> None:
        """What is done around each sleep. For who sleeps by himself: before and after."""
        self._host.ready()
        self._host.serve()
        self._status.beat()
        self.timers.run()

    def sleep(self, until: int) -> bool:
        """Sleep until there may be something by any link; False: the time is up."""
        return self._sleep(self._set, until, ffi.NULL, 0)

    def sleep_for(self, link: Link, until: int) -> bool:
        """Sleep until there may be something by one link, or from the host; False: the time is up."""
        pair = self._pairs.get(link)
        if pair is None:
            pair = self._pairs[link] = wait_set([self._host.lane.end, link.receiving_end])
        return self._sleep(pair, until, ffi.NULL, 0)

    def sleep_beside(self, links: Sequence[Link], fds: Any, until: int) -> bool:
        """As `sleep`, for these links and the descriptor that stands in `fds[1]` (struct pollfd[2]).

        Raises:
            OSError: it is not open.
        """
        if links != self._quiet[0] or self._quiet[1] is None:
            ends = [self._host.lane.end, *(link.receiving_end for link in links)]
            self._quiet = (links, wait_set(ends))
        woken = self._sleep(self._quiet[1], until, fds, 1)
        if fds[1].revents & lib.POLLNVAL:
            raise OSError(errno.EBADF, f"waiting for descriptor {fds[1].fd}, which is not open")
        return woken

    def _change_host(self, change: Callable[[], None]) -> None:
        """Sleep for another lane of the host, which `change` puts in place of the present one."""
        lib.mk_wait_set_remove(self._set, self._host.lane.end)
        self._pairs.clear()
        self._quiet = ((), None)
        change()
        code = lib.mk_wait_set_add(self._set, self._host.lane.end)
        if code:
            raise failure(code, "waiting for the host")

    def _sleep(self, ends: Any, until: int, fds: Any, count: int) -> bool:
        self._host.ready()
        self._status.beat()
        due = self.timers.next_due()
        first = earlier(until, due)
        code = lib.mk_py_set_wait(ends, fds, count, ffi.NULL, False, first)
        while code == -errno.EINTR:
            code = lib.mk_py_set_wait(ends, fds, count, ffi.NULL, False, first)
        self._status.beat()
        if code in (-errno.EBUSY, -errno.ECHILD):
            raise NotOwner(
                "this kernel is in use by another thread, or belongs to the process that this was forked from"
            )
        if code < 0 and code != -errno.ETIMEDOUT:
            raise failure(code, "waiting for messages")
        self.timers.run()
        return bool(code > 0) or first == due
