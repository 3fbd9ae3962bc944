"""The bare cache line: a round trip between two cpus without a message. Its cost is the *placement* of a figure.

Written by both sides in turn it is the least that a round trip can cost. Memory with one writer takes a line each way.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from multikernel._core import ffi, lib

from .sides import Cpus, Run, Side, Tally, Work, measured

FAR = 250.0
"""ns of a round trip from which on two cpus are far: what is near takes 200 at most, what is far 350 at least."""

ROUNDS = 20_000
_APART = 256  # bytes between two lines: no prefetcher takes them for one
_RUNS = 9


def nearness(nanoseconds: float) -> str:
    """Which of the two, near or far, a bare round trip of so many ns shows."""
    return "far" if nanoseconds >= FAR else "near"


@contextmanager
def bouncing(cpus: Cpus, lines: int = 1) -> Iterator[Work]:
    """An operation is a round trip, on one line or on two. No pause in the loops."""
    back = (lines - 1) * _APART
    sides = (0, 1)
    with (
        mmap.mmap(-1, mmap.PAGESIZE) as page,
        measured(*((cpus[side], _side(page, back, side)) for side in sides)) as work,
    ):
        yield work


def spin_ns(cpus: Cpus) -> int:
    """A bare cache line's round trip, ns: the best of some runs."""
    with bouncing(cpus) as work:
        return round(min(work(ROUNDS).seconds for _ in range(_RUNS)) * 1e9)


def _side(page: mmap.mmap, back: int, answers: int) -> Side:
    @contextmanager
    def opened() -> Iterator[Run]:
        word = ffi.from_buffer(page)
        done = 0

        def run(operations: int) -> Tally:
            nonlocal done
            lib.mk_cache_line_bounce(word, word + back, answers, done, operations)
            done += operations
            return Tally(operations)

        try:
            yield run
        finally:
            ffi.release(word)

    return opened
