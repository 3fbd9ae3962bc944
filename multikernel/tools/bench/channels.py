"""What carries messages in one direction between two processes: what such a thing is, and ours.

A channel is made before the processes of a measurement are forked; each of them opens its end there. What the ends are,
is functions: nothing of ours stands between a transport's own call and the loop that is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from multikernel.shm.ring import Ring

if TYPE_CHECKING:
    from multikernel.shm.waiting import WaitPolicy

PREPARED = 256
"""Different messages, sent in turn."""

CAPACITY = 1 << 20
"""Bytes of a channel that can be told: room enough that a burst of the sender's does not stop at once."""

Send = Callable[[Any], object]
"""Sends one message; waits while there is no room."""
Receive = Callable[[], Any]
"""Waits for a message, and returns it."""
SendMany = Callable[[list[bytes]], object]
ReceiveMany = Callable[[int], list[bytes]]
"""Waits for a message, and returns up to that many."""


def prepared(size: int) -> list[bytes]:
    """Messages of `size` bytes, each another one."""
    return [bytes((i + j) & 0xFF for j in range(size)) for i in range(PREPARED)]


class Channel(Protocol):
    """One direction. `sender` and `receiver` are called once, each in the process that uses it."""

    def sender(self) -> Send:
        """Open the sending end."""
        ...

    def receiver(self) -> Receive:
        """Open the receiving end."""
        ...

    def close(self) -> None:
        """Close what this process has of it; where it was made, remove it."""
        ...


class BatchChannel(Channel, Protocol):
    """One that moves many messages by one call."""

    def sender_many(self) -> SendMany:
        """Open the sending end."""
        ...

    def receiver_many(self) -> ReceiveMany:
        """Open the receiving end."""
        ...


class ArrayChannel(Protocol):
    """One for numpy arrays of elements."""

    def array_sender(self) -> Send:
        """Open the sending end."""
        ...

    def array_receiver(self) -> Callable[[Any], int]:
        """Open the receiving end: fills an array from its start, and returns how many elements it filled."""
        ...

    def close(self) -> None:
        """As in `Channel`."""
        ...


class RingChannel:
    """A ring of records."""

    def __init__(self, size: int, wait: WaitPolicy = "adaptive", capacity: int = CAPACITY) -> None:
        self._ring = Ring(max(capacity, 8 * size))
        self.tx = self._ring.sender(wait=wait)
        self.rx = self._ring.receiver(wait=wait)

    def sender(self) -> Send:
        """`send`."""
        return self.tx.send

    def receiver(self) -> Receive:
        """`recv`."""
        return self.rx.recv

    def sender_many(self) -> SendMany:
        """`send_many`."""
        return self.tx.send_many

    def receiver_many(self) -> ReceiveMany:
        """`recv_many`."""
        return self.rx.recv_many

    def close(self) -> None:
        """Both ends, as far as they are this process's."""
        self._ring.close()


class RingArrays:
    """A ring of elements, each a row of `words` 8-byte numbers."""

    def __init__(self, words: int) -> None:
        self._ring = Ring(CAPACITY, dtype="u8", shape=(words,))
        self.tx = self._ring.sender()
        self.rx = self._ring.receiver()

    def array_sender(self) -> Send:
        """`send_many` of an array."""
        return self.tx.send_many

    def array_receiver(self) -> Callable[[Any], int]:
        """`recv_into`."""
        return self.rx.recv_into

    def close(self) -> None:
        """Both ends, as far as they are this process's."""
        self._ring.close()
