"""Timers of the loop: functions that it calls at their time, without a thread and without a wake-up in between."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable

LONGEST = 1e9
"""Seconds that a timer may be set to: three decades."""


class Timer:
    """A function that is due at a time, or every so often. Made by `Kernel.every` and `Kernel.after`."""

    __slots__ = ("_call", "_due", "_period")

    def __init__(self, call: Callable[[int], object], due: int, period: int) -> None:
        self._call = call
        self._due = due
        self._period = period

    @property
    def active(self) -> bool:
        """Whether it will be called again."""
        return self._due >= 0

    def cancel(self) -> None:
        """Call it no more. Twice is fine, and so is from its own function."""
        self._due = -1

    def __repr__(self) -> str:
        every = f"every {self._period / 1e9:g} s" if self._period else "once"
        return f"<Timer, {every}{'' if self.active else ', over'}>"


class Timers:
    """Those of one loop, by the time at which they are due (CLOCK_MONOTONIC, ns)."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._numbers = itertools.count()
        self.on_change: Callable[[], object] | None = None
        """Called when one was added: it may be the next."""

    def every(self, seconds: float, call: Callable[[int], object]) -> Timer:
        """Call `call(count)` every so many seconds, the first time after as many."""
        _check_callable(call)
        period = nanoseconds(seconds)
        if not period:
            raise ValueError(f"every {seconds!r} seconds: the least is a nanosecond")
        return self._add(Timer(call, time.monotonic_ns() + period, period))

    def after(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call `call()` once, after so many seconds."""
        _check_callable(call)
        return self._add(Timer(lambda _: call(), time.monotonic_ns() + nanoseconds(seconds), 0))

    def next_due(self) -> int:
        """When the next one is due; negative: none is."""
        while self._heap and not self._heap[0][2].active:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else -1

    def run(self) -> None:
        """Call those that are due by now, each once, earliest first.

        One that has its turn is not called again from within: its own function may wait in the loop.
        """
        if not self._heap:
            return
        now = time.monotonic_ns()
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            if timer.active:
                self._run(timer)

    def _run(self, timer: Timer) -> None:
        count, due = 1, timer._due
        if timer._period:
            count += (time.monotonic_ns() - due) // timer._period
            timer._due += count * timer._period  # from its time and not from now: it does not drift
        else:
            timer.cancel()
        try:
            timer._call(count)
        finally:
            if timer.active:
                self._add(timer)

    def _add(self, timer: Timer) -> Timer:
        heapq.heappush(self._heap, (timer._due, next(self._numbers), timer))
        if self.on_change is not None:
            self.on_change()
        return timer


def earlier(until: int, due: int) -> int:
    """The earlier one of two deadlines, of which a negative one never comes."""
    if due < 0:
        return until
    return due if until < 0 else min(until, due)


def nanoseconds(seconds: float) -> int:
    """A time from 0 up."""
    if not (math.isfinite(seconds) and 0 <= seconds <= LONGEST):
        raise ValueError(f"a timer is set to a number of seconds from 0 to {LONGEST:g}, not to {seconds!r}")
    return round(seconds * 1e9)


def _check_callable(call: object) -> None:
    """Now, and not when the timer is due: then nobody knows whose it is."""
    if not callable(call):
        raise TypeError(f"a timer calls a function, not {type(call).__name__}")
