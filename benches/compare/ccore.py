"""The C core's own benches, csrc/bench: programs that print what they measured as JSON."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

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
    document: dict[str, Any] = json.loads(text)
    for each in document["works"]:
        for contestant in each["contestants"]:
            if each["work"] == work and contestant["name"] == OURS:
                median = float(contestant["median"])
                return median / 1e9 if each["unit"] == "ns" else 1 / (median * 1e6)
    raise ValueError(f"the program has no figure of ours for {work!r}")


@contextmanager
def ours(cpus: Cpus, name: str, work: str) -> Iterator[Work]:
    """The core's own figure for a work. The program decides how many operations it takes, and checks each of them."""
    command = ["taskset", "-c", ",".join(map(str, cpus)), str(program(name)), "--json", work]

    def measure(operations: int) -> Sample:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=True)
        took = round(parse(ran.stdout, work) * 1e9 * operations)
        return Sample(operations, (Outcome(Tally(operations), 0, took, 0, 0),))

    yield measure
