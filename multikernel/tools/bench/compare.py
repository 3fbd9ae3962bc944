"""How everything is measured: two in turn, A B A B, and the ratio of each pair."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from .cache_line import spin_ns
from .channels import PREPARED
from .sides import Cpus, Sample, Work

ROUNDS = 9
SECONDS = 0.1
MAKES = 3
_MOST = 1 << 24  # operations of a sample

Cost: TypeAlias = Callable[[Sample], float]
"""What of a sample is compared; less is better."""


def seconds_each(sample: Sample) -> float:
    """The usual cost: seconds of one operation."""
    return sample.seconds


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    rounds: pairs of samples
    makes: times that both are made anew meanwhile, at most: where their memory lies counts in a round trip
    seconds: that a sample takes, about; 0: as few operations as there can be
    """

    rounds: int = ROUNDS
    seconds: float = SECONDS
    makes: int = MAKES

    def parts(self) -> list[int]:
        """Rounds to be made with each that is made."""
        makes = max(1, min(self.makes, self.rounds))
        return [self.rounds // makes + (part < self.rounds % makes) for part in range(makes)]


@dataclass(frozen=True)
class Comparison:
    """What came of it.

    ratios: their cost over ours, of each pair; above 1 ours is better
    ours, theirs: cost of one operation, the median
    operations: of all samples of ours, each of them checked
    spin_ns: a bare cache line's round trip, the least and the most of what it was before and after
    """

    work: str
    against: str
    ratios: tuple[float, ...]
    ours: float
    theirs: float
    operations: int
    spin_ns: tuple[int, int]

    @property
    def ratio(self) -> float:
        """The median."""
        return statistics.median(self.ratios)

    @property
    def low(self) -> float:
        """The lowest."""
        return min(self.ratios)

    @property
    def high(self) -> float:
        """The highest."""
        return max(self.ratios)


Make: TypeAlias = Callable[[Cpus], AbstractContextManager[Work]]
"""Makes somebody ready to work on two cpus."""


@dataclass(frozen=True)
class Contender:
    """Somebody who can do a work.

    least: operations of a sample are a multiple of this
    each: as `make`, but its first side says what each operation took (`round_trips`); None: nobody asks
    """

    name: str
    make: Make
    least: int = PREPARED
    each: Make | None = None


@dataclass(frozen=True)
class Case:
    """One work, done by us and by the others. `cost` is what of a sample is compared."""

    work: str
    ours: Contender
    others: tuple[Contender, ...]
    cost: Cost = seconds_each


def compare(case: Case, other: Contender, cpus: Cpus, effort: Effort) -> Comparison:
    """Run ours and one other in turn.

    Raises:
        Wrong: a message of either was not what was sent. There is nothing to show then.
        TimeoutError, Exception: nothing came of it; whatever one of them raised.
    """
    parts = []
    for rounds in effort.parts():
        with case.ours.make(cpus) as ours, other.make(cpus) as theirs:
            parts.append(in_turn(case, other, ours, theirs, partial(spin_ns, cpus), replace(effort, rounds=rounds)))
    return Comparison(
        case.work,
        other.name,
        tuple(ratio for part in parts for ratio in part.ratios),
        statistics.median(part.ours for part in parts),
        statistics.median(part.theirs for part in parts),
        sum(part.operations for part in parts),
        (min(min(part.spin_ns) for part in parts), max(max(part.spin_ns) for part in parts)),
    )


def in_turn(
    case: Case, other: Contender, ours: Work, theirs: Work, placement: Callable[[], int], effort: Effort
) -> Comparison:
    """As `compare`, with both at work already. `placement` measures the bare cache line, ns."""
    before = placement()
    mine, others = fitting(ours, case.ours.least, effort.seconds), fitting(theirs, other.least, effort.seconds)
    pairs = [(case.cost(ours(mine)), case.cost(theirs(others))) for _ in range(effort.rounds)]
    return Comparison(
        case.work,
        other.name,
        tuple(their_cost / our_cost for our_cost, their_cost in pairs),
        statistics.median(our_cost for our_cost, _ in pairs),
        statistics.median(their_cost for _, their_cost in pairs),
        mine * effort.rounds,
        (before, placement()),
    )


def fitting(work: Work, least: int, seconds: float) -> int:
    """How many operations take about so long. They are tried, which also pays for what is used for the first time."""
    count = least
    if not seconds:
        return count
    while True:
        took = work(count).seconds * count
        if took * 4 >= seconds or count * 2 > _MOST:
            break
        count *= 2
    wanted = round(count * seconds / took) if took else count
    return max(least, min(wanted, _MOST) // least * least)


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
    return aligned(rows, left=2)


def aligned(rows: Sequence[tuple[str, ...]], *, left: int) -> list[str]:
    """Rows in columns; all but the first `left` columns flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
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
