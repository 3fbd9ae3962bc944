"""The receiving end of a `Broadcast` whose sender waits for nobody."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from multikernel._core import failure, ffi, lib
from multikernel.errors import Closed, CorruptLane

from .channel import close_all
from .claimed import claim_lane_receiver
from .fan_receiver import FanReceiver
from .lane import _WRONG
from .waiting import WaitPolicy, policy_number

if TYPE_CHECKING:
    from .handles import Bundle

BATCH_RECORDS = 32
"""Copied by one call into the core, at most."""


class BroadcastReceiver(FanReceiver):
    """The receiving end of a `Broadcast` made with slow="miss". The first call that receives claims it.

    The sender does not wait for it. When it was overtaken it goes on with the oldest message that is whole, and
    `missed` says how many are lacking; a message that was overwritten while it was copied is never given out.
    Iterating gives messages until the sender is gone; Closed where this end was closed here. One thread at a time, as
    with `Receiver`.
    """

    role = "receiver of a broadcast"
    _peer = "the sender"

    def __init__(self, bundle: Bundle, number: int, wait: WaitPolicy) -> None:
        super().__init__(bundle, BATCH_RECORDS)
        self._number = number  # of the message where it begins
        self._wait = wait

    @property
    def capacity(self) -> int:
        """Bytes that the ring holds, record headers (16 bytes each) and padding (to 8) included."""
        capacity: int = lib.mk_py_follower_capacity(self._claimed())
        return capacity

    @property
    def missed(self) -> int:
        """How many messages were overwritten before they could be received, up to the one that was received last.

        Exact: what was received and what was missed are together all that was sent since this receiver was made.
        """
        return int(lib.mk_py_follower_missed(self._c)) if self._c is not None else 0

    def fileno(self) -> int:
        """A descriptor for event loops, level-triggered: readable while a message is unread or the sender is gone.

        It belongs to this end.
        """
        fd: int = lib.mk_py_follower_event(self._claimed())
        if fd < 0:
            self._fail(fd)
        return fd

    def _look(self, limit: int, until: int) -> int:
        c = self._claimed()
        while True:
            try:
                code: int = lib.mk_py_follower_peek(c, self._messages, limit, until)
            except BaseException:
                self._recover()
                raise
            if code > 0:
                return code
            if code in (-errno.EAGAIN, -errno.ETIMEDOUT):
                return 0
            if code != -errno.EINTR:
                self._fail_to_look(code)

    def _give(self, ended_well: bool) -> None:
        code = lib.mk_py_follower_give(self._c, ended_well)
        if code:
            self._fail(code)

    def _recover(self) -> None:
        lib.mk_py_follower_leave(self._c)

    def _over(self) -> bool:
        code = lib.mk_py_follower_over(self._c)
        if code < 0:
            self._fail(code)
        return bool(code)

    def _waiting(self) -> int:
        count: int = lib.mk_py_follower_waiting(self._claimed())
        if count < 0:
            self._fail(count)
        return count

    def _fail_to_look(self, code: int) -> NoReturn:
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

    def _fail_later(self, _code: int) -> None:
        """As `_fail_to_look`, by the next call, which finds the lane quarantined again."""

    def _make(self, fds: tuple[int, ...]) -> Any:
        slot = claim_lane_receiver(fds)
        c = lib.mk_py_follower_new(slot, self._number, policy_number(self._wait))
        if c == ffi.NULL:
            if ffi.errno == errno.EINVAL:
                raise CorruptLane("this is no broadcast whose sender waits for nobody")
            raise failure(-ffi.errno, "following a broadcast")
        close_all(fds)
        self._bind(int(ffi.cast("uintptr_t", c)), False)
        return ffi.gc(c, lib.mk_py_follower_drop)

    def _close(self, c: Any) -> int:
        code: int = lib.mk_py_follower_close(c)
        if not code:
            self._bind(0, False)
        return code

    def __reduce__(self) -> tuple[Callable[..., BroadcastReceiver], tuple[Any, ...]]:
        return BroadcastReceiver, (*self._pass_on(), self._number, self._wait)
