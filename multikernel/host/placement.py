"""Where the host and its zygote run: off the cpus that are given to instances, while there is any other."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Placement:
    """Keeps processes of the machine's own off given cpus.

    Args:
        pids: gives the processes; every thread of each is moved.
    """

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._all = os.sched_getaffinity(0)
        self._now = self._all

    def keep_off(self, given: Iterable[int]) -> None:
        """Run on the cpus that are not `given`; on all, if all are. A cpuset that forbids them all wins."""
        cpus = self._all - set(given) or self._all
        if cpus == self._now:
            return
        self._now = cpus
        self.renew()

    def renew(self) -> None:
        """Move processes that have come since, too."""
        for thread in _threads(self._pids()):
            with contextlib.suppress(OSError):  # it has just ended, or the cpuset has changed
                os.sched_setaffinity(thread, self._now)


def _threads(pids: Iterable[int]) -> Iterator[int]:
    for pid in filter(None, pids):  # 0: there is none at present
        with contextlib.suppress(OSError):
            yield from map(int, os.listdir(f"/proc/{pid}/task"))
