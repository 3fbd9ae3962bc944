"""How everything here is measured: two in turn, A B A B, and the ratio of each pair."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

ROUNDS = 9

Work = Callable[[], float]
"""Does the work once and returns the seconds of one operation. Raises if what came out is wrong."""


@dataclass(frozen=True)
class Comparison:
    """What came of one bench.

    ratio: their time over ours, the median of all pairs, with the lowest and highest; above 1 ours is faster
    ours: seconds of one operation, the median
    spin_ns: a bare cache line's round trip, before and after
    """

    work: str
    against: str
    ratio: float
    low: float
    high: float
    ours: float
    spin_ns: tuple[int, int]


def compare(
    work: str, against: str, ours: Work, theirs: Work, spin_ns: Callable[[], int], rounds: int = ROUNDS
) -> Comparison:
    """Run both in turn. The first pair is not counted: it pays for what is used for the first time."""
    before = spin_ns()
    pairs = [(ours(), theirs()) for _ in range(rounds + 1)][1:]
    ratios = sorted(their_time / our_time for our_time, their_time in pairs)
    return Comparison(
        work,
        against,
        statistics.median(ratios),
        ratios[0],
        ratios[-1],
        statistics.median(our_time for our_time, _ in pairs),
        (before, spin_ns()),
    )


def table(comparisons: list[Comparison]) -> list[str]:
    """Lines of text: a comparison each."""
    rows = [("work", "against", "ratio", "range", "ours", "cache line")]
    rows += [
        (
            each.work,
            each.against,
            f"{each.ratio:.2f}x",
            f"{each.low:.2f}-{each.high:.2f}",
            duration(each.ours),
            "-".join(str(ns) for ns in sorted(set(each.spin_ns))) + " ns",
        )
        for each in comparisons
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def duration(seconds: float) -> str:
    """Seconds for people."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.2f} {unit}"
    return f"{seconds * 1e9:.0f} ns"
