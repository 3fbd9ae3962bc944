"""Requests whose replies are waited for later: what they are, and how there is room for one more."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from multikernel._core import failure, ffi, lib
from multikernel.shm.wait import wait_set
from multikernel.shm.waiting import AT_ONCE, deadline

if TYPE_CHECKING:
    from multikernel.errors import Timeout
    from multikernel.shm.lane_receiver import LaneReceiver
    from multikernel.shm.lane_sender import LaneSender

    from .inbox import Inbox
    from .messages import Message


class Pending:
    """A request under way. Made by `Link.begin`; belongs to the link's thread.

    Its reply is kept until it is asked for, or this is forgotten, and garbage collection is that too.
    """

    def __init__(
        self,
        inbox: Inbox,
        id_: int,
        hearing: Callable[[Callable[[], Message | None]], Message | None],
        no_reply: Callable[[float | None], Timeout],
    ) -> None:
        self._inbox = inbox
        self._hearing, self._no_reply = hearing, no_reply  # of its link: how it calls its receiving end
        self.id = id_
        """The message's."""
        inbox.expect(id_)

    def try_reply(self) -> Message | None:
        """The reply, without waiting; None: it has not come yet. Raises as `reply` does."""
        return self._hearing(lambda: self._inbox.take_reply(self.id, AT_ONCE))

    def reply(self, timeout: float | None = 30.0) -> Message:
        """The reply; waits for it, and serves what else there is meanwhile, as `Link.request` does.

        Raises:
            TimeoutError: it did not come within `timeout` seconds; it may be asked for again.
            Closed: the other party is gone.
        """
        return self.reply_by(deadline(timeout), timeout)

    def reply_by(self, until: int, timeout: float | None) -> Message:
        """As `reply`, until a deadline; `timeout` is for the message of the error."""
        message = self._hearing(lambda: self._inbox.take_reply(self.id, until))
        if message is None:
            raise self._no_reply(timeout)
        return message

    def forget(self) -> None:
        """Wait for it no more: a reply that comes from now on is late. Twice is fine."""
        self._inbox.forget(self.id)

    def __del__(self) -> None:
        self.forget()


def wait_for_room(sender: LaneSender, receiver: LaneReceiver, until: int) -> bool:
    """Wait for room to send, or for something to receive: whoever makes no room may wait for it himself.

    Right after a `try_send` that found none. False: the deadline has come.
    """
    ends = wait_set([sender.end, receiver.end])  # for this once: the ends may get other sockets with another peer
    code = -errno.EINTR
    while code == -errno.EINTR:
        code = lib.mk_py_set_wait(ends, ffi.NULL, 0, ffi.NULL, False, until)
    if code < 0 and code != -errno.ETIMEDOUT:
        raise failure(code, "waiting for room")
    return bool(code > 0)
