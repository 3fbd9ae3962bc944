"""What is compared, by the names of GOALS: a row has cases, each of one work against several, or things to count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benches.compare.peers import Peers
from multikernel.tools.bench.compare import Case, Comparison, Effort
from multikernel.tools.bench.sides import Cpus


@dataclass(frozen=True)
class Goal:
    """What is aimed at: so many times as fast, or at most so many times the cost. `far`: where the cpus are far."""

    least: float | None = None
    most: float | None = None
    far: float | None = None

    def limit(self, nearness: str) -> float:
        """What the ratio is held against."""
        near = self.least if self.least is not None else self.most
        assert near is not None
        return self.far if nearness == "far" and self.far is not None else near


@dataclass(frozen=True)
class Planned:
    """A case, the goals by who it is against, and whether the time of each operation is of interest."""

    case: Case
    goals: Mapping[str, Goal]
    latency: bool = False


@dataclass(frozen=True)
class Count:
    """Something that is counted, not compared. `most`: what is aimed at; None: nothing, it stands there for others."""

    work: str
    what: str
    value: float
    most: float | None = None


def nothing(*_: Any) -> Iterator[Any]:
    """A row that has none of these."""
    return iter(())


@dataclass(frozen=True)
class Row:
    """What stands under one name.

    about: a title.
    cases: makes what is to be compared, of the peers that are here.
    found: comparisons that another program makes, each with its goal.
    counts: counts, and takes its time.
    """

    about: str
    cases: Callable[[Peers], list[Planned]] = field(default=lambda _: [])
    found: Callable[[Cpus, Effort], Iterator[tuple[Comparison, Goal | None]]] = nothing
    counts: Callable[[Cpus, Effort, Peers], Iterator[Count]] = nothing


def all_rows() -> dict[str, Row]:
    """Every row, by its name, in order."""
    from . import (
        arrays,
        core,
        executor,
        fan_in,
        footprint,
        halves,
        idle,
        instances,
        messages,
        objects,
        payloads,
        round_trips,
        system_calls,
        waiting,
    )

    streams = (core, messages, arrays, round_trips, payloads, fan_in)
    rows: dict[str, Row] = {}
    for module in (*streams, idle, objects, executor, waiting, halves, instances, footprint, system_calls):
        rows |= module.ROWS
    return rows
