"""One party's half of a link, before the other half has come."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

from multikernel.shm.lane import LaneReceiver, LaneSender
from multikernel.shm.objects import lane_object, reopen
from multikernel.shm.pages import MachineView, StatusPage
from multikernel.shm.waiting import WaitPolicy

from .link import Keeper, Link


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
        made: list[int] = []
        ends: list[Any] = []
        try:
            made.append(lane_object("producer", f"{owner_id}", capacity, owner_id=owner_id, epoch=epoch))
            made.append(lane_object("consumer", f"{owner_id}", capacity, owner_id=owner_id, epoch=epoch))
            ends.append(LaneSender(made[0], "the peer", wait=wait))
            ends.append(LaneReceiver(made[1], "the peer", wait=wait, ipis=True))
            given = [reopen(made[0])]
            try:
                given.append(reopen(made[1]))
            except BaseException:
                os.close(given[0])
                raise
        except BaseException:
            for end in ends:
                end.close()
            raise
        finally:
            for fd in made:
                os.close(fd)
        return cls(*ends, given, capacity)

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
            machine, peer_epoch: where the host says what has become of an instance, and which incarnation this is.
            status: the own status page, where the link is counted; None: privately.
            keeper: who serves more than this link.

        Raises:
            CorruptLane: the objects are not what they must be. This half is closed.
        """
        sender, receiver = self._sender, self._receiver
        if sender is None or receiver is None:
            raise ValueError("this half was attached or closed")
        producer, consumer = descriptors
        sockets = [socket_fd, os.dup(socket_fd)]
        pidfds = [pidfd, os.dup(pidfd)]
        try:
            receiver.attach(producer, owned=True, socket_fd=sockets[0], pidfd=pidfds[0])
            sockets.pop(0), pidfds.pop(0)
            sender.attach(consumer, owned=True, socket_fd=sockets[0], pidfd=pidfds[0])
            sockets.pop(0), pidfds.pop(0)
        except BaseException:
            self.close()
            raise
        finally:
            for fd in (producer, consumer, *sockets, *pidfds):
                os.close(fd)
        self._sender = self._receiver = None
        self.close()
        for end in (sender, receiver):
            end.call_peer(f"{peer_name} (id {peer_id})")
        counters = status.link(peer_id, self.capacity) if status is not None else None
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
