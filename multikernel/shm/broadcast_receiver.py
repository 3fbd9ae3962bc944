"""The receiving end of a `Broadcast` whose sender waits for nobody."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from multikernel._core import failure, ffi, lib
from multikernel.errors import Closed, CorruptLane

from .channel import close_all
from .claimed import FanEnd, claim_lane_receiver
from .lane import _WRONG
from .waiting import AT_ONCE, WaitPolicy, deadline, policy_number

if TYPE_CHECKING:
    from .handles import Bundle

BATCH_RECORDS = 32
"""Copied by one call into the core, at most."""


class BroadcastReceiver(FanEnd):
    """The receiving end of a `Broadcast` made with slow="miss". The first call that receives claims it.

    The sender does not wait for it. When it was overtaken it goes on with the oldest message that is whole, and
    `missed` says how many are lacking; a message that was overwritten while it was copied is never given out.
    Iterating gives messages until the sender is gone. One thread at a time, as with `Receiver`.
    """

    role = "receiver of a broadcast"

    def __init__(self, bundle: Bundle, number: int, wait: WaitPolicy) -> None:
        super().__init__(bundle)
        self._number = number  # of the message where it begins
        self._wait = wait
        self._missed = 0
        self._messages = ffi.new("struct mk_message[]", BATCH_RECORDS)
        self._gap = ffi.new("uint64_t *")

    def recv(self, timeout: float | None = None) -> bytes:
        """The next message, copied; waits while there is none.

        Args:
            timeout: seconds to wait. None: no limit; 0: do not wait.

        Raises:
            TimeoutError: nothing came within `timeout`.
            Closed: the sender is gone and all that is left of what it had sent has been received.
            CorruptLane: the sender wrote what cannot be.
        """
        found = self._take(1, deadline(timeout))
        if not found:
            self._fail(-errno.ETIMEDOUT, timeout=timeout, peer="the sender")
        return found[0]

    def try_recv(self) -> bytes | None:
        """As `recv`, without waiting; None when nothing is there."""
        found = self._take(1, AT_ONCE)
        return found[0] if found else None

    def recv_many(self, limit: int, timeout: float | None = None) -> list[bytes]:
        """Up to `limit` messages, oldest first. Waits for the first, then takes what is there.

        Those that it missed lay before the first: none is lacking between two of a list.

        Args:
            limit: most messages to take, >= 1.
            timeout: seconds to wait for the first.

        Raises:
            ValueError: `limit` is below 1.
            TimeoutError, Closed, CorruptLane: as `recv`.
        """
        found = self._take(_checked(limit), deadline(timeout))
        if not found:
            self._fail(-errno.ETIMEDOUT, timeout=timeout, peer="the sender")
        return found

    def try_recv_many(self, limit: int) -> list[bytes]:
        """As `recv_many`, without waiting: an empty list when nothing is there."""
        return self._take(_checked(limit), AT_ONCE)

    @property
    def missed(self) -> int:
        """How many messages were overwritten before they could be received, up to the one that was received last.

        Exact: what was received and what was missed are together all that was sent since this receiver was made.
        """
        return self._missed

    def fileno(self) -> int:
        """A descriptor for event loops, level-triggered: readable while a message is unread or the sender is gone.

        It belongs to this end.
        """
        fd: int = lib.mk_py_follower_event(self._claimed())
        if fd < 0:
            self._fail(fd)
        return fd

    async def arecv(self) -> bytes:
        """As `recv`, in asyncio: other tasks run while the ring is empty. One task at a time (NotOwner)."""
        from .aio import done

        return await done(self.try_recv, self)

    def __aiter__(self) -> AsyncIterator[bytes]:
        from .aio import each

        return each(self.arecv)

    def _take(self, limit: int, until: int) -> list[bytes]:
        c = self._claimed()
        messages, gap = self._messages, self._gap
        while True:
            try:
                code = lib.mk_py_follower_take(c, messages, min(limit, BATCH_RECORDS), gap, until)
                if code > 0:
                    found = [ffi.buffer(m.payload, m.length)[:] for m in messages[0:code]]
                    self._missed += gap[0]
                    lib.mk_py_follower_leave(c)
                    return found
            except BaseException:
                lib.mk_py_follower_leave(c)
                raise
            if code in (-errno.EAGAIN, -errno.ETIMEDOUT):
                return []
            if code != -errno.EINTR:
                self._fail_to_take(code)

    def _fail_to_take(self, code: int) -> NoReturn:
        if code not in (-errno.EPIPE, -errno.EBADMSG):
            self._fail(code)
        view = ffi.new("struct mk_py_view *")
        lib.mk_py_follower_inspect(self._c, view)
        if code == -errno.EPIPE:
            who = f"the sender (pid {view.peer_pid})" if view.peer_pid else "the sender, which nobody holds any more,"
            raise Closed(f"{who} has closed its end or ended", pid=view.peer_pid)
        what = _WRONG.get(view.bad, "word")
        raise CorruptLane(
            f"the sender (pid {view.peer_pid}) wrote a {what} that cannot be: {view.bad_value:#x}. "
            "The lane is quarantined; close it",
            what=what,
            value=view.bad_value,
            pid=view.peer_pid,
        )

    def _make(self, fds: tuple[int, ...]) -> Any:
        slot = claim_lane_receiver(fds)
        c = lib.mk_py_follower_new(slot, self._number, policy_number(self._wait))
        if c == ffi.NULL:
            if ffi.errno == errno.EINVAL:
                raise CorruptLane("this is no broadcast whose sender waits for nobody")
            raise failure(-ffi.errno, "following a broadcast")
        close_all(fds)
        return ffi.gc(c, lib.mk_py_follower_drop)

    def _close(self, c: Any) -> int:
        code: int = lib.mk_py_follower_close(c)
        return code

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                message = self.recv()
            except Closed:
                return
            yield message

    def __reduce__(self) -> tuple[Callable[..., BroadcastReceiver], tuple[Any, ...]]:
        return BroadcastReceiver, (*self._pass_on(), self._number, self._wait)


def _checked(limit: int) -> int:
    if limit < 1:
        raise ValueError(f"recv_many({limit}): the least is 1")
    return limit
