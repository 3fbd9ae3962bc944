"""The lanes that an incarnation receives by, as its host holds them: to see what it does not read, and what it left."""

from __future__ import annotations

import contextlib
import os

from multikernel.shm.channel import close_all
from multikernel.shm.lane_look import Lane, Unread

MOST_UNREAD = 64
"""Headers of one lane that are read at its receiver's death."""


class Inbound:
    """Read-only descriptors of both objects of each lane; none is mapped."""

    def __init__(self) -> None:
        self._lanes: list[Lane] = []

    def add(self, sender: int, producer: int, consumer: int, capacity: int) -> None:
        """Hold one more lane, by copies of its descriptors. Those that its receiver has closed go.

        Raises:
            OSError: there are no descriptors.
        """
        self._sweep()
        copies: list[int] = []
        try:
            copies.extend(map(os.dup, (producer, consumer)))
        except OSError:
            close_all(copies)
            raise
        self._lanes.append(Lane(copies[0], copies[1], capacity, sender))

    def released(self) -> tuple[int, ...]:
        """How far each lane was given back."""
        return tuple(lane.released() for lane in self._lanes)

    def waits(self) -> bool:
        """Whether something that was not given back lies in any of them."""
        return any(lane.waits() and not lane.closed() for lane in self._lanes)

    def unread(self) -> list[Unread]:
        """The headers of what was not given back, by lane."""
        found: list[Unread] = []
        for lane in self._lanes:
            with contextlib.suppress(OSError):
                found += lane.unread(MOST_UNREAD)
        return found

    def close(self) -> None:
        """Let all of them go. Closing twice is fine."""
        for lane in self._lanes:
            close_all([lane.producer, lane.consumer])
        self._lanes = []

    def _sweep(self) -> None:
        closed = [lane for lane in self._lanes if lane.closed()]
        for lane in closed:
            self._lanes.remove(lane)
            close_all([lane.producer, lane.consumer])
