"""One party's half of a link, before the other half has come."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from multikernel.shm.lane_receiver import LaneReceiver
from multikernel.shm.lane_sender import LaneSender
from multikernel.shm.objects import lane_object, reopen

from .link import Keeper, Link

if TYPE_CHECKING:
    from multikernel.shm.pages import MachineView, StatusPage
    from multikernel.shm.waiting import WaitPolicy

    from .peer import Introducer


_COUNT_BITS = 40  # of an id, above them the epoch; the two highest of all say what kind of message it is
_EPOCHS = (1 << (62 - _COUNT_BITS)) - 1


class LinkHalf:
    """What one party brings to a link: the producer object of what it sends, the consumer object of what it receives.

    Both are made, mapped and sealed here, so that nobody else can ever write them; `descriptors` are read-only.
    """

    def __init__(self, sender: LaneSender, receiver: LaneReceiver, fds: list[int], capacity: int, epoch: int) -> None:
        self._sender: LaneSender | None = sender
        self._receiver: LaneReceiver | None = receiver
        self._fds = fds
        self._first_id = 0
        self.capacity = capacity
        self.epoch = epoch
        """Of the incarnation that has made it."""
        self.set_aside: dict[str, int] | None = None
        """What `succeed` has put away: type, subtype, id and length of a message."""

    @classmethod
    def create(cls, capacity: int, owner_id: int, epoch: int, *, wait: WaitPolicy = "adaptive") -> Self:
        """Make the objects for `capacity` bytes each way (a power of two of at least a page).

        Raises:
            ValueError: no such capacity.
            OSError: not enough memory or descriptors. Nothing is left.
        """
        given: list[int] = []
        ends: list[LaneSender | LaneReceiver] = []
        made: list[int] = []
        try:
            made.append(lane_object("producer", f"{owner_id}", capacity, owner_id=owner_id, epoch=epoch))
            made.append(lane_object("consumer", f"{owner_id}", capacity, owner_id=owner_id, epoch=epoch))
            sender = LaneSender(made[0], "the peer", wait=wait)
            ends.append(sender)
            receiver = LaneReceiver(made[1], "the peer", wait=wait, ipis=True)
            ends.append(receiver)
            for fd in made:
                given.append(reopen(fd))  # noqa: PERF401 what was reopened is closed after an error
        except BaseException:
            for end in ends:
                end.close()
            for fd in given:
                os.close(fd)
            raise
        finally:
            for fd in made:
                os.close(fd)
        return cls(sender, receiver, given, capacity, epoch)

    def descriptors(self) -> list[int]:
        """Read-only descriptors to hand to the other party: [producer, consumer]. Still this half's."""
        return list(self._fds)

    def attach(
        self,
        descriptors: Sequence[int],
        *,
        socket_fd: int,
        pidfd: int,
        peer_id: int,
        peer_name: str,
        machine: MachineView | None = None,
        peer_epoch: int = 0,
        status: StatusPage | None = None,
        keeper: Keeper | None = None,
        number: int = 0,
        introducer: Introducer | None = None,
    ) -> Link:
        """Put the other party's half to this one, and make a link of them.

        All descriptors belong to the link from now on, whatever happens.

        Args:
            descriptors: the peer's, read-only: [producer, consumer].
            socket_fd: this side of the link's socket pair.
            pidfd: of the peer's process; -1: it has ended, and a successor of it is due.
            peer_id: its id, as errors and messages show it.
            peer_name: its name.
            machine: where the host says what has become of an instance.
            peer_epoch: which incarnation of it this is.
            status: the own status page, where the link is counted; None: privately.
            keeper: who serves more than this link.
            number: by which the host knows the link; 0: none does.
            introducer: the way to the host.

        Raises:
            CorruptLane: the objects are not what they must be. This half is closed, here and below.
            OSError: not enough memory or descriptors.
            ValueError: this half was attached or closed, or these are not two descriptors.
        """
        self.face(descriptors, socket_fd, pidfd)
        return self.join(
            peer_id=peer_id,
            peer_name=peer_name,
            machine=machine,
            peer_epoch=peer_epoch,
            status=status,
            keeper=keeper,
            number=number,
            introducer=introducer,
        )

    def join(
        self,
        *,
        peer_id: int,
        peer_name: str,
        machine: MachineView | None = None,
        peer_epoch: int = 0,
        status: StatusPage | None = None,
        keeper: Keeper | None = None,
        number: int = 0,
        introducer: Introducer | None = None,
    ) -> Link:
        """Make a link of a half that faces its peer. Arguments as for `attach`."""
        try:
            sender, receiver = self._ends()
            for end in (sender, receiver):
                end.call_peer(f"{peer_name} (id {peer_id})")
            counters = status.link(peer_id, self.capacity) if status is not None else None
        except BaseException:
            self.close()
            raise
        self._sender = self._receiver = None
        self.close()
        return Link(
            sender,
            receiver,
            peer_id=peer_id,
            peer_name=peer_name,
            peer_epoch=peer_epoch,
            machine=machine,
            counted=(status, counters) if status is not None else None,
            keeper=keeper,
            number=number,
            introducer=introducer,
            first_id=self._first_id,
        )

    def face(self, descriptors: Sequence[int], socket_fd: int, pidfd: int) -> None:
        """Attach the other party's objects to both ends. Arguments and errors as for `attach`; without a link."""
        ours = [fd for fd in (*descriptors, socket_fd, pidfd) if fd >= 0]  # to close here, until they are an end's
        try:
            sender, receiver = self._ends()
            producer, consumer = descriptors
            for end, peer_object in ((receiver, producer), (sender, consumer)):
                both = [os.dup(socket_fd)]
                ours += both
                if pidfd >= 0:
                    both.append(os.dup(pidfd))
                    ours.append(both[1])
                end.attach(peer_object, owned=True, socket_fd=both[0], pidfd=both[1] if pidfd >= 0 else -1)
                del ours[-len(both) :]
        except BaseException:
            self.close()
            raise
        finally:
            for fd in ours:
                os.close(fd)

    def succeed(self, predecessor: Sequence[int], *, set_aside: bool) -> None:
        """Go on where the half of an earlier incarnation ends; this one faces the peer already, and nobody has it yet.

        Args:
            predecessor: [producer, consumer] of that, read-only; still the caller's afterwards.
            set_aside: whether the first message is not to be received, because those before died of it.

        Raises:
            CorruptLane: they are not, or what stands in them cannot be. This half is closed.
        """
        try:
            sender, receiver = self._ends()
            producer, consumer = predecessor
            sender.succeed(producer)
            receiver.succeed(consumer)
            if set_aside:
                self.set_aside = receiver.skip()
        except BaseException:
            self.close()
            raise
        # Not those of the predecessor: a reply to it is none to us.
        self._first_id = (self.epoch & _EPOCHS) << _COUNT_BITS

    def _ends(self) -> tuple[LaneSender, LaneReceiver]:
        if self._sender is None or self._receiver is None:
            raise ValueError("this half was attached or closed")
        return self._sender, self._receiver

    def close(self) -> None:
        """Close what is left of this half. Idempotent."""
        for end in (self._sender, self._receiver):
            if end is not None:
                end.close()
        self._sender = self._receiver = None
        for fd in self._fds:
            os.close(fd)
        self._fds = []
