"""The bare cache line: a round trip between two cpus without a message. Its cost is the *placement* of a figure."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from multikernel._core import ffi, lib

from .sides import Cpus, Run, Side, Tally, Work, measured

FAR = 250.0
"""ns of a round trip from which on two cpus are far: what is near takes 200 at most, what is far 350 at least."""

ROUNDS = 20_000
_RUNS = 9


def nearness(nanoseconds: float) -> str:
    """Which of the two, near or far, a bare round trip of so many ns shows."""
    return "far" if nanoseconds >= FAR else "near"


@contextmanager
def bouncing(cpus: Cpus) -> Iterator[Work]:
    """An operation is a round trip. No pause in the loops."""
    with mmap.mmap(-1, mmap.PAGESIZE) as page, measured((cpus[0], _side(page, 0)), (cpus[1], _side(page, 1))) as work:
        yield work


def spin_ns(cpus: Cpus) -> int:
    """A bare cache line's round trip, ns: the best of some runs."""
    with bouncing(cpus) as work:
        return round(min(work(ROUNDS).seconds for _ in range(_RUNS)) * 1e9)


def _side(page: mmap.mmap, answers: int) -> Side:
    @contextmanager
    def opened() -> Iterator[Run]:
        word = ffi.from_buffer(page)
        done = 0

        def run(operations: int) -> Tally:
            nonlocal done
            lib.mk_cache_line_bounce(word, answers, done, operations)
            done += operations
            return Tally(operations)

        try:
            yield run
        finally:
            ffi.release(word)

    return opened
