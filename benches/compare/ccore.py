"""The C core's own benches, csrc/bench: programs that print what they measured as JSON."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from multikernel.tools.bench.compare import Comparison
from multikernel.tools.bench.sides import Cpus, Outcome, Sample, Tally, Work

ROOT = Path(__file__).parents[2]
OURS = "ours"
_NO_SUCH_WORK = 77
_LIMIT = 120.0  # seconds; only against hanging


@cache
def program(name: str) -> Path:
    """The program of that name, built now if it must be. RuntimeError: it cannot be."""
    # With the name of no work all are built, and each says that it has no such work.
    command = ["make", "-C", str(ROOT / "csrc"), "bench", "ARGS=none"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    path = ROOT / "csrc/build/plain" / f"bench_{name}"
    if not path.exists() or f"Error {_NO_SUCH_WORK}" not in built.stderr:
        raise RuntimeError(f"csrc/bench/bench_{name}.c cannot be built: {built.stderr.strip() or 'it is not there'}")
    return path


def parse(text: str, work: str) -> float:
    """Seconds of one operation of ours, from what a program has printed. ValueError: it is not in there."""
    for each in _works(text, work):
        for contestant in each["contestants"]:
            if contestant["name"] == OURS:
                return _seconds(each, contestant)
    raise ValueError(f"the program has no figure of ours for {work!r}")


def _works(text: str, work: str) -> list[dict[str, Any]]:
    document: dict[str, Any] = json.loads(text)
    return [each for each in document["works"] if each["work"] == work]


def _seconds(work: dict[str, Any], contestant: dict[str, Any]) -> float:
    median = float(contestant["median"])
    return median / 1e9 if work["unit"] == "ns" else 1 / (median * 1e6)


def _print(cpus: Cpus, name: str, work: str) -> str:
    command = ["taskset", "-c", ",".join(map(str, cpus)), str(program(name)), "--json", work]
    return subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=True).stdout


def comparisons(cpus: Cpus, name: str, work: str) -> list[Comparison]:
    """What a program says of ours and its peers for a work: median, lowest and highest of its pairs."""
    found = []
    for each in _works(_print(cpus, name, work), work):
        ours, *others = each["contestants"]
        before, after = each["bare_line_ns"]
        for other in others:
            said = [other["ours"][what] for what in ("lowest", "ratio", "highest")]  # ours over theirs
            ratios = tuple(1 / ratio if each["unit"] == "ns" else ratio for ratio in said)
            lines = (round(before), round(after))
            found.append(Comparison(work, other["name"], ratios, _seconds(each, ours), _seconds(each, other), 0, lines))
    return found


@contextmanager
def ours(cpus: Cpus, name: str, work: str) -> Iterator[Work]:
    """The core's own figure for a work. The program decides how many operations it takes, and checks each of them."""

    def measure(operations: int) -> Sample:
        took = round(parse(_print(cpus, name, work), work) * 1e9 * operations)
        return Sample(operations, (Outcome(Tally(operations), 0, took, 0, 0),))

    yield measure
