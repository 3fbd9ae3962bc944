"""What the view needs of whoever holds the pages of instances: a client, which the host pushes them to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from multikernel.kernel.panic import Panic
from multikernel.shm.pages import ConsoleView, StatusView

Watched = tuple[int, StatusView, ConsoleView]
"""The pages of an instance's newest incarnation, and which that is (its epoch). They stay when it has ended."""

Find = Callable[[int], Watched | None]
"""From the id of an instance to its pages; None: none have come. Called anew for each leaf that is read."""

FindPanic = Callable[[int, int], Panic | None]
"""From the id of an instance, and the epoch of the incarnation that died, to its panic report; None: it is gone."""


def no_panic(_instance_id: int, _epoch: int) -> None:
    """For who holds no reports."""


class Watching(Protocol):
    """The same as an object; a dict by id is one."""

    def get(self, instance_id: int, /) -> Watched | None:
        """The pages of the instance; None: none have come."""
