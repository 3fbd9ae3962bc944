"""What came of a run: comparisons held against their goals, counts, what failed and what was missing; as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benches.compare.rows import Count, Goal
from multikernel.tools.bench import as_document
from multikernel.tools.bench.cache_line import nearness
from multikernel.tools.bench.compare import Comparison

NOISE = 0.10
"""How far from its goal a ratio may be that is said to have reached it within the noise."""

FORMAT = 1


@dataclass
class Run:
    """All of it, as plain data: what stands in the JSON file.

    comparisons: each with its row, goal and verdict; counts: likewise
    failed: what is not shown, and why; missing: peers that are not here, and why
    """

    machine: dict[str, Any]
    rounds: int
    cpus: list[int]
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    counts: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)
    """When each row was measured, UTC."""

    def add(self, row: str, found: Comparison, goal: Goal | None, latency: dict[str, Any]) -> None:
        """Keep a comparison. latency: percentiles by who it is."""
        placement = nearness(max(found.spin_ns))
        entry = {"row": row} | as_document(found) | {"placement": placement, "steady": is_steady(found)}
        entry |= {"latency_ns": latency, "goal": None, "verdict": ""}
        if goal is not None:
            entry |= {"goal": asdict(goal) | {"limit": goal.limit(placement)}, "verdict": verdict(found, goal)}
        self.comparisons.append(entry)

    def count(self, row: str, count: Count) -> None:
        """Keep something that was counted."""
        said = "" if count.most is None else "reached" if count.value <= count.most else "missed"
        self.counts.append({"row": row} | asdict(count) | {"verdict": said})

    def without(self, rows: Iterable[str]) -> Run:
        """This run, but for some rows."""
        left_out = set(rows)
        kept = [[each for each in kind if each["row"] not in left_out] for kind in (self.comparisons, self.counts)]
        failed = [each for each in self.failed if each["row"] not in left_out]
        times = {row: when for row, when in self.rows.items() if row not in left_out}
        return Run(self.machine, self.rounds, self.cpus, *kept, failed, dict(self.missing), times)

    def save(self, path: Path) -> None:
        """Write it."""
        path.write_text(json.dumps({"format": FORMAT} | asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Run:
        """What `save` wrote. ValueError if it is something else."""
        document = json.loads(path.read_text())
        if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is no run of this comparison: give a file that its --json wrote")
        return cls(**document)


def is_steady(found: Comparison) -> bool:
    """Whether the two cpus were as near after it as before."""
    before, after = found.spin_ns
    return nearness(before) == nearness(after)


def verdict(found: Comparison, goal: Goal) -> str:
    """Whether a goal is reached by the median."""
    limit = goal.limit(nearness(max(found.spin_ns)))
    margin = found.ratio / limit if goal.least is not None else limit * found.ratio  # 1 and more: reached
    if margin >= 1:
        return "reached"
    return "within the noise" if margin >= 1 - NOISE else "missed"


def this_machine() -> dict[str, Any]:
    """What the figures depend on, beside the placement."""
    from multikernel import __version__

    return {
        "multikernel": __version__,
        "python": platform.python_version(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
    }


def now() -> str:
    """The time, UTC, to the minute."""
    return datetime.now(UTC).isoformat(timespec="minutes")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "unknown"
