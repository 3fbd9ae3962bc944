"""`Broadcast`: one sender, many receivers, each at its own pace."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

from multikernel._core import failure, ffi, lib
from multikernel.errors import Closed, CorruptLane, NotOwner
from multikernel.units import format_size

from .broadcast_receiver import BroadcastReceiver
from .broadcast_sender import BroadcastSender
from .channel import close_all
from .door import Door
from .format import Format
from .handles import Bundle, Handle
from .objects import lane_object, reopen
from .receiver import Receiver
from .ring import capacity_for
from .waiting import WaitPolicy, policy_number

Slow = Literal["wait", "miss"]
"""What happens to a receiver that is slow: `wait`: the sender waits for it; `miss`: it is told how many it missed."""


class Broadcast:
    """One sender, many receivers, each at its own pace. All get the same messages, which lie in memory once.

    A receiver gets all that is sent after it was made, and nothing from before. Receivers are made by the process that
    made the broadcast, at any time, and passed on from there. There are no more of them when it closes the broadcast or
    ends; those that there are go on.

    Args:
        capacity: of the ring that all share, as for `Ring`.
        slow: what happens to a receiver that is slow. "wait": the sender waits for it; one that dies is dropped at
            once. "miss": the sender waits for nobody; a receiver that was overtaken goes on with the oldest message
            that is whole, and is told how many it missed.

    Raises:
        ValueError: a capacity or `slow` that cannot be.
        OSError: not enough memory or descriptors.
    """

    def __init__(self, capacity: int | str = "1M", *, slow: Slow = "wait") -> None:
        if slow not in ("wait", "miss"):
            raise ValueError(f"slow={slow!r}: there are 'wait' and 'miss'")
        self._capacity = capacity_for(capacity, Format())
        self._slow = slow
        self._maker = os.getpid()
        self._roster: Any = ffi.NULL
        self._numbers = itertools.count()
        self._producer = -1  # read-only
        self._sender: Bundle | None = None
        self._door, inside = Door.both()
        fds = [inside]
        try:
            self._make(fds)
        except BaseException:
            close_all(fds)
            self._let_go()
            raise
        self._sender = Bundle(*fds)

    def _make(self, fds: list[int]) -> None:
        """The rest of what the sender needs, behind its side of the door; and what stays here."""
        producer = lib.mk_broadcast_object(self._capacity, self._slow == "miss")
        if producer == -errno.EINVAL:
            raise ValueError(f"capacity {self._capacity}: at most {lib.MK_CAPACITY_MAX} bytes")
        if producer < 0:
            raise failure(producer, f"making a broadcast of {self._capacity} bytes")
        fds.append(producer)
        self._producer = reopen(producer)
        roster = ffi.new("struct mk_roster **")
        fd = lib.mk_roster_create(roster)
        if fd < 0:
            raise failure(fd, "making the roster of a broadcast")
        self._roster = roster[0]
        fds.append(fd)
        fds.append(os.pidfd_open(self._maker))

    @property
    def capacity(self) -> int:
        """Bytes that the ring holds, record headers (16 bytes each) and padding (to 8) included."""
        return self._capacity

    def sender(self, *, wait: WaitPolicy = "adaptive") -> BroadcastSender:
        """The sending end. The second call raises NotOwner: there is one."""
        policy_number(wait)
        bundle, self._sender = self._sender, None
        if bundle is None:
            raise NotOwner("this broadcast's sender was handed out already, or the broadcast was closed: it has one")
        return BroadcastSender(bundle, self._slow, wait)

    def receiver(self, *, wait: WaitPolicy = "adaptive") -> Receiver | BroadcastReceiver:
        """One more receiver, which gets what is sent from now on.

        Returns:
            With slow="wait" a `Receiver`, as a ring has it; with slow="miss" a `BroadcastReceiver`.

        Raises:
            Closed: the broadcast was closed here, or the sender is gone.
            NotOwner: another process made this broadcast.
            ResourceError: some hundreds were made and the sender has not taken them in yet.
            OSError: not enough memory or descriptors.
        """
        policy_number(wait)
        if self._roster == ffi.NULL:
            raise Closed("this broadcast was closed here")
        if self._maker != os.getpid():
            raise NotOwner(
                f"receivers are made by the process that made the broadcast (pid {self._maker}): make them there, and "
                "pass them on"
            )
        handle, number = self._add()
        if self._slow == "wait":
            return Receiver(handle, Format(), wait)
        return BroadcastReceiver(handle, number, wait)

    def _add(self) -> tuple[Handle, int]:
        """A handle that begins where the sender is, and the number of the message there."""
        number = ffi.new("uint64_t *")
        fds = [lane_object("consumer", "broadcast", self._capacity)]
        try:
            fds.append(os.dup(self._producer))
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            fds.append(ours.detach())
            with theirs:
                consumer = reopen(fds[0])
                try:
                    self._door.announce(theirs.fileno())
                    self._door.put({"receiver": next(self._numbers)}, [consumer, theirs.fileno()], "receiver")
                finally:
                    os.close(consumer)
            code = lib.mk_roster_add(self._roster, self._producer, fds[0], number)
            if code == -errno.EBADMSG:
                raise CorruptLane("the sender of this broadcast scribbles over its page")
            if code:
                raise failure(code, "counting a receiver of a broadcast")
        except BaseException:
            close_all(fds)
            raise
        return Handle(*fds), number[0]

    def close(self) -> None:
        """There will be no more receivers. Ends that were handed out stay; a sender that was not is gone.

        Idempotent.
        """
        if self._roster != ffi.NULL and self._maker == os.getpid():
            lib.mk_roster_close(self._roster)
            self._roster = ffi.NULL
        self._let_go()

    def _let_go(self) -> None:
        self._door.close()
        bundle, self._sender = self._sender, None
        if bundle is not None:
            bundle.close()
        producer, self._producer = self._producer, -1
        if producer >= 0:
            os.close(producer)
        roster, self._roster = self._roster, ffi.NULL
        if roster != ffi.NULL and self._maker == os.getpid():  # nothing is mapped in a forked copy
            lib.mk_roster_drop(roster)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_door"):
            self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a broadcast stays with the process that made it: pass its ends on")

    def __repr__(self) -> str:
        state = "closed" if self._roster == ffi.NULL else format_size(self._capacity)
        return f"<Broadcast, slow={self._slow!r}, {state}>"
