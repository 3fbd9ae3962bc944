"""`Mailbox`: many senders, one receiver.

Each sender has a lane of its own, so senders never contend, and one that dies in the middle of a message costs the
others nothing. The idea of many lanes instead of one contended queue is Barrelfish's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from multikernel.errors import Closed, NotOwner
from multikernel.units import format_size

from .channel import close_all
from .door import Door
from .format import Format
from .handles import Bundle, Handle
from .mailbox_receiver import MailboxReceiver
from .ring import capacity_for, make_ends
from .sender import Sender
from .waiting import WaitPolicy, policy_number

MOST_SENDERS = 1 << 32


class MailboxSender(Sender):
    """The sending end of one lane of a `Mailbox`: a `Sender` with a number.

    number: what `recv_from` of the mailbox's receiver says for messages of this one. None for one that was made by
        `from_fds`: who detached it knows.
    """

    def __init__(self, handle: Handle, format_: Format, wait: WaitPolicy, number: int | None = None) -> None:
        super().__init__(handle, format_, wait)
        self.number = number

    def __reduce__(self) -> tuple[Callable[..., Sender], tuple[Any, ...]]:
        _, arguments = super().__reduce__()
        return MailboxSender, (*arguments, self.number)


class Mailbox:
    """Many senders, one receiver.

    `sender()` may be called any number of times, by whatever process holds the mailbox (it can be passed on as an end
    can), also while the receiver is in use elsewhere. It is closed for new senders when the process that made it
    closes it, or ends, or when nobody holds it any more; those that were made go on. When they are gone, too, the
    receiver gets Closed.

    Args:
        capacity: of each sender's lane, as for `Ring`.

    Raises:
        ValueError: a capacity that cannot be.
        OSError: not enough descriptors.
    """

    def __init__(self, capacity: int | str = "1M") -> None:
        self._capacity = capacity_for(capacity, Format())
        self._maker = os.getpid()
        self._tickets = -1
        self._receiver: Bundle | None = None
        self._door, inside = Door.both()
        fds = [inside]
        try:
            # No memory: its offset counts the senders (moving it is one step, whoever holds it), its seal says that
            # the receiver was claimed.
            self._tickets = os.memfd_create("lane:mailbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            fds.append(os.dup(self._tickets))
            fds.append(os.pidfd_open(self._maker))
        except BaseException:
            close_all(fds)
            self._let_go()
            raise
        self._receiver = Bundle(*fds)

    @property
    def capacity(self) -> int:
        """Bytes that each sender's lane holds, record headers (16 bytes each) and padding (to 8) included."""
        return self._capacity

    def sender(self, *, wait: WaitPolicy = "adaptive") -> MailboxSender:
        """One more sender, with a lane of its own. Does not wait for the receiver; what is sent before waits for it.

        Raises:
            Closed: the mailbox is closed for new senders, or the receiver has ended.
            ResourceError: some hundreds were made and the receiver has not taken them in yet.
            OSError: not enough memory or descriptors.
        """
        policy_number(wait)
        if self._tickets < 0:
            raise Closed("this mailbox was closed for new senders here")
        number = os.lseek(self._tickets, 1, os.SEEK_CUR) - 1
        if number >= MOST_SENDERS:
            raise ValueError(f"this mailbox has had {MOST_SENDERS} senders: that is as many as there are numbers")
        mine, theirs = make_ends(self._capacity, 0)
        try:
            fds = theirs.give_up()
            try:
                self._door.announce(fds[2])
                self._door.put({"sender": number}, fds, "sender")
            finally:
                close_all(fds)
        except Closed as error:
            mine.close()
            raise Closed("this mailbox is closed for new senders, or its receiver is gone") from error
        except BaseException:
            mine.close()
            raise
        return MailboxSender(mine, Format(), wait, number)

    def receiver(self, *, wait: WaitPolicy = "adaptive") -> MailboxReceiver:
        """The receiving end. The second call raises NotOwner: there is one."""
        policy_number(wait)
        bundle, self._receiver = self._receiver, None
        if bundle is None:
            raise NotOwner(
                "this mailbox's receiver was handed out already, or the mailbox was closed before: it has one"
            )
        return MailboxReceiver(bundle, self._capacity, wait)

    def close(self) -> None:
        """Close it for new senders: where it was made for all who hold it, elsewhere for this process alone.

        Ends that were handed out stay; a receiver that was not is gone. Idempotent.
        """
        if self._maker == os.getpid():
            self._door.shut()
        self._let_go()

    def _let_go(self) -> None:
        self._door.close()
        bundle, self._receiver = self._receiver, None
        if bundle is not None:
            bundle.close()
        tickets, self._tickets = self._tickets, -1
        if tickets >= 0:
            os.close(tickets)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_door"):
            self._let_go()

    def __reduce__(self) -> tuple[Callable[..., Mailbox], tuple[Any, ...]]:
        from multiprocessing import reduction

        if self._tickets < 0:
            raise NotOwner("this mailbox was closed here: nothing of it is left to pass on")
        door, tickets = reduction.DupFd(self._door.fileno()), reduction.DupFd(self._tickets)
        return _rebuild, (self._capacity, door, tickets, self._receiver)

    def __repr__(self) -> str:
        state = "closed" if self._tickets < 0 else f"lanes of {format_size(self._capacity)}"
        return f"<Mailbox, {state}>"


def _rebuild(capacity: int, door: Any, tickets: Any, receiver: Bundle | None) -> Mailbox:
    box = Mailbox.__new__(Mailbox)
    box._capacity, box._maker = capacity, 0
    box._door, box._tickets, box._receiver = Door.of(door.detach()), tickets.detach(), receiver
    return box
