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


class LinkHalf:
    """What one party brings to a link: the producer object of what it sends, the consumer object of what it receives.

    Both are made, mapped and sealed here, so that nobody else can ever write them; `descriptors` are read-only.
    """

    def __init__(self, sender: LaneSender, receiver: LaneReceiver, fds: list[int], capacity: int) -> None:
        self._sender: LaneSender | None = sender
        self._receiver: LaneReceiver | None = receiver
        self._fds = fds
        self.capacity = capacity

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
        return cls(sender, receiver, given, capacity)

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
    ) -> Link:
        """Put the other party's half to this one. All descriptors belong to the link from now on, whatever happens.

        Args:
            descriptors: the peer's, read-only: [producer, consumer].
            socket_fd: this side of the link's socket pair.
            pidfd: of the peer's process.
            peer_id: its id, as errors and messages show it.
            peer_name: its name.
            machine: where the host says what has become of an instance.
            peer_epoch: which incarnation of it this is.
            status: the own status page, where the link is counted; None: privately.
            keeper: who serves more than this link.

        Raises:
            CorruptLane: the objects are not what they must be. This half is closed, here and below.
            OSError: not enough memory or descriptors.
            ValueError: this half was attached or closed, or these are not two descriptors.
        """
        ours = [*descriptors, socket_fd, pidfd]  # to close here, until they are an end's
        try:
            sender, receiver = self._sender, self._receiver
            if sender is None or receiver is None:
                raise ValueError("this half was attached or closed")
            producer, consumer = descriptors
            for end, peer_object in ((receiver, producer), (sender, consumer)):
                both = [os.dup(socket_fd)]
                ours += both
                both.append(os.dup(pidfd))
                ours.append(both[1])
                end.attach(peer_object, owned=True, socket_fd=both[0], pidfd=both[1])
                del ours[-2:]
                end.call_peer(f"{peer_name} (id {peer_id})")
            counters = status.link(peer_id, self.capacity) if status is not None else None
        except BaseException:
            self.close()
            raise
        finally:
            for fd in ours:
                os.close(fd)
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
        )

    def close(self) -> None:
        """Close what is left of this half. Idempotent."""
        for end in (self._sender, self._receiver):
            if end is not None:
                end.close()
        self._sender = self._receiver = None
        for fd in self._fds:
            os.close(fd)
        self._fds = []
