"""The host lane: one direction, from the host to an instance.

It carries SYSTEM/SHUTDOWN, and IPI 0 ("look at your control channel"); everything that the instance says to its host
goes over the control channel.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any, Self

from multikernel.errors import Closed, CorruptLane
from multikernel.shm import lane_look
from multikernel.shm.channel import close_all
from multikernel.shm.lane_receiver import IPI_WAITS, LaneReceiver
from multikernel.shm.lane_sender import LaneSender
from multikernel.shm.objects import lane_object, reopen
from multikernel.shm.waiting import AT_ONCE

from .messages import SHUTDOWN, SYSTEM

CAPACITY = 4096
_SHUTDOWN = struct.Struct("=Ii")  # struct mk_shutdown_payload: flags, sender's instance id
_GRACEFUL = 0x01


def _capacity() -> int:
    return max(CAPACITY, os.sysconf("SC_PAGESIZE"))


class HostLane:
    """The host's end."""

    def __init__(self, sender: LaneSender, fd: int) -> None:
        self._sender = sender
        self._fd = fd
        self._consumer = -1
        self._attached = False

    @classmethod
    def create(cls, instance_id: int, epoch: int) -> Self:
        """Make the producer object of a lane to one incarnation."""
        own = lane_object("producer", f"host>{instance_id}", _capacity(), owner_id=0, epoch=epoch)
        try:
            sender = LaneSender(own, f"instance {instance_id}")
            try:
                return cls(sender, reopen(own))
            except BaseException:
                sender.close()
                raise
        finally:
            os.close(own)

    def descriptors(self) -> list[int]:
        """[producer], read-only, for the instance; still this lane's."""
        return [self._fd]

    def attach(self, consumer_fd: int, socket_fd: int) -> None:
        """Attach the instance's consumer object. Both descriptors belong to the lane from now on.

        Raises:
            CorruptLane: it is not what it must be.
        """
        try:
            self._sender.attach(consumer_fd, owned=True, socket_fd=socket_fd)
        except BaseException:
            os.close(socket_fd)
            os.close(consumer_fd)
            raise
        self._consumer = consumer_fd
        self._attached = True

    def is_parked(self) -> bool:
        """Whether the instance sleeps until something comes, by its own account: its loop waits on this lane always."""
        return self._attached and lane_look.is_parked(self._consumer)

    def shutdown(self) -> None:
        """Ask the instance to halt. Never waits; nothing happens to one that is gone, or has ruined its lane."""
        if self._attached:
            self._quietly(lambda: self._sender.try_send(_SHUTDOWN.pack(_GRACEFUL, 0), SYSTEM, SHUTDOWN))

    def ring(self) -> None:
        """Raise IPI 0. Never waits."""
        if self._attached:
            self._quietly(lambda: self._sender.ipi(0))

    def _quietly(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except (Closed, CorruptLane):
            pass  # it is ending, and its pidfd tells the host so; or it cannot be told anything any more

    def close(self) -> None:
        """Close the lane. Idempotent."""
        self._sender.close()
        self._attached = False
        close_all([fd for fd in (self._fd, self._consumer) if fd >= 0])
        self._fd = self._consumer = -1


class HostLaneReceiver:
    """The instance's end."""

    def __init__(self, receiver: LaneReceiver, fd: int) -> None:
        self._receiver = receiver
        self._fd = fd
        self.attached = False

    @classmethod
    def create(cls, instance_id: int, epoch: int) -> Self:
        """Make the consumer object."""
        own = lane_object("consumer", f"host>{instance_id}", _capacity(), owner_id=instance_id, epoch=epoch)
        try:
            receiver = LaneReceiver(own, "the host", ipis=True)
            try:
                return cls(receiver, reopen(own))
            except BaseException:
                receiver.close()
                raise
        finally:
            os.close(own)

    def descriptors(self) -> list[int]:
        """[consumer], read-only, for the host; still this lane's."""
        return [self._fd]

    def attach(self, producer_fd: int, socket_fd: int) -> None:
        """Attach the host's producer object. Both descriptors belong to the lane from now on."""
        try:
            self._receiver.attach(producer_fd, owned=True, socket_fd=socket_fd)
        except BaseException:
            os.close(socket_fd)
            raise
        finally:
            os.close(producer_fd)
        self.attached = True

    def replace(self, other: HostLaneReceiver) -> None:
        """Be the end of another lane from now on: a new host's. The old one is closed."""
        self.close()
        self._receiver, self._fd, self.attached = other._receiver, other._fd, other.attached
        other._fd = -1

    def count_waits_in(self, counters: Any) -> None:
        """Count waits in the instance's own counters: the loop's are waits on this lane, whatever else it waits for.

        What comes by the lane is the host's business and is not counted as the instance's.
        """
        self._receiver.count_waits_in(counters)

    @property
    def end(self) -> Any:
        """The C end, for a wait set."""
        return self._receiver.end

    @property
    def lane(self) -> LaneReceiver:
        """The lane, for `wait`."""
        return self._receiver

    def take(self) -> tuple[bool, bool]:
        """What the host wants: (halt, look at the control channel). Never waits.

        Raises:
            Closed: the host is gone, and all that it had sent was taken.
        """
        halt = look = False
        while (record := self._receiver.receive(AT_ONCE)) is not None:
            if record is IPI_WAITS:
                first = 0
                while (raised := self._receiver.take_ipi(first)) is not None:
                    first = raised[0] + 1
                look = True
                break  # what else there is waits for the next time
            halt |= record.type == SYSTEM and record.subtype == SHUTDOWN
        return halt, look

    @property
    def ready(self) -> bool:
        """Whether `take` would find something. No system call."""
        return self._receiver.ready

    def close(self) -> None:
        """Close the lane. Idempotent."""
        self._receiver.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
