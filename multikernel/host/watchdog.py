"""Sees an instance that hangs, by what its pages and lanes say; and costs one that does not, nothing.

A sign of life is its heartbeat, which moves when its loop looks, or a lane that it gives something back of. One that
is parked, with nothing to read, is alive and is not disturbed. One that is neither has half of its time to give a
sign by itself; then its host lane is rung, which asks its loop to look; and when all of its time is over, it is hung.

Time is counted by looks, and none counts for more than two of them: if the host was stopped itself, or the whole
machine was, what it has not seen is no silence of the others'.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeAlias

from multikernel.errors import CorruptLane
from multikernel.host import log
from multikernel.shm.pages import StatusView

if TYPE_CHECKING:
    from collections.abc import Callable

    from multikernel.host.incarnation import Incarnation
    from multikernel.host.instance import Instance

_LOOKS = 8  # in the time that a watchdog allows
_SHORTEST = 0.005  # seconds between two looks

Signs: TypeAlias = tuple[int, tuple[int, ...]]


class Watchdog:
    """Looks at all instances that have one.

    Args:
        published: called when an instance has become hung, or alive again.
        hung: called with one whose time is over, and how long it has been silent, in seconds.
    """

    def __init__(
        self, published: Callable[[Instance], None], hung: Callable[[Instance, Incarnation, float], None]
    ) -> None:
        self._published, self._hung = published, hung

    def watch(self, instance: Instance, run: Incarnation) -> None:
        """Look at this incarnation from now on until it is over, if its instance has a watchdog."""
        if instance.policy.watchdog is None or not run.pages:
            return
        try:
            status = StatusView(run.pages[0])
        except (CorruptLane, OSError) as error:
            log.write(f"no watchdog for {instance.name}: {error}")
            return
        watch = _Watch(instance, run, status, instance.policy.watchdog, self._published, self._hung)
        run.over.add_done_callback(lambda _: watch.end())


class _Watch:
    """One incarnation that is looked at."""

    def __init__(
        self,
        instance: Instance,
        run: Incarnation,
        status: StatusView,
        limit: float,
        published: Callable[[Instance], None],
        hung: Callable[[Instance, Incarnation, float], None],
    ) -> None:
        self._instance, self._run, self._status, self._limit = instance, run, status, limit
        self._published, self._hung = published, hung
        self._period = max(limit / _LOOKS, _SHORTEST)
        self._silent = 0.0
        self._probed = False
        self._signs: Signs | None = None
        self._looked = time.monotonic()
        self._next = asyncio.get_running_loop().call_later(self._period, self._look)

    def end(self) -> None:
        """Look no more."""
        self._next.cancel()
        self._status.close()

    def _look(self) -> None:
        self._next = asyncio.get_running_loop().call_later(self._period, self._look)
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, 2 * self._period), now
        status = self._status.read()
        signs = status.heartbeat_ns, self._run.inbound.released()
        idle = self._run.is_parked() and not status.awake and not self._run.inbound.waits()
        if signs != self._signs or idle:
            self._signs, self._silent, self._probed = signs, 0.0, False
            if self._instance.hung_since_ns:
                self._instance.hung_since_ns = 0
                log.write(f"{self._instance.name} gives signs of life again")
                self._published(self._instance)
            return
        self._silent += passed
        if self._silent >= self._limit:
            self._is_hung()
        elif self._silent >= self._limit / 2 and not self._probed and not self._run.is_parked():
            self._probed = True
            self._run.probe()

    def _is_hung(self) -> None:
        if self._instance.hung_since_ns:
            return  # as was said
        self._instance.hung_since_ns = time.monotonic_ns() - int(self._silent * 1e9)
        log.write(f"{self._instance.name} is hung: no sign of life for {self._silent:.2f} s")
        self._published(self._instance)
        self._hung(self._instance, self._run, self._silent)
