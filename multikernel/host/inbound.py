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
        self._lanes: dict[int, Lane] = {}  # by the link's number

    def add(self, link: int, sender: int, producer: int, consumer: int, capacity: int) -> None:
        """Hold one more lane, by copies of its descriptors; in place of the one that this link had before, if any.

        Raises:
            OSError: there are no descriptors.
        """
        copies: list[int] = []
        try:
            copies.extend(map(os.dup, (producer, consumer)))
        except OSError:
            close_all(copies)
            raise
        self.remove(link)
        self._lanes[link] = Lane(copies[0], copies[1], capacity, sender)

    def remove(self, link: int) -> None:
        """Let the lane of a link go, if it is there."""
        lane = self._lanes.pop(link, None)
        if lane is not None:
            close_all([lane.producer, lane.consumer])

    def released(self) -> tuple[int, ...]:
        """How far each lane was given back."""
        return tuple(lane.released() for lane in self._lanes.values())

    def waits(self) -> bool:
        """Whether something that was not given back lies in any of them."""
        return any(lane.waits() and not lane.closed() for lane in self._lanes.values())

    def unread(self) -> list[Unread]:
        """The headers of what was not given back, by lane."""
        found: list[Unread] = []
        for lane in self._lanes.values():
            with contextlib.suppress(OSError):
                found += lane.unread(MOST_UNREAD)
        return found

    def close(self) -> None:
        """Let all of them go. Closing twice is fine."""
        for link in list(self._lanes):
            self.remove(link)
