"""What every bench gets: two cpus, the cost of a cache line between them, and a place in the table at the end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from benches.measure import ROUNDS, Comparison, Work, compare, table

ROWS = pytest.StashKey[list[Comparison]]()

Record = Callable[[str, str, Work, Work], None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


@pytest.fixture(scope="session")
def cpus() -> tuple[int, int]:
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        pytest.skip("needs two cpus, and this process may use one only")
    return usable[0], usable[1]


@pytest.fixture(scope="session")
def spin_ns(cpus, tmp_path_factory) -> Callable[[], int]:
    """Measures a bare cache line's round trip between the two cpus, ns."""
    program = tmp_path_factory.mktemp("cache_line") / "cache_line"
    source = Path(__file__).with_name("cache_line.c")
    subprocess.run(["cc", "-O2", "-pthread", str(source), "-o", str(program)], check=True)

    def measure() -> int:
        ran = subprocess.run([str(program), *map(str, cpus)], check=True, stdout=subprocess.PIPE, timeout=60)
        return int(ran.stdout)

    return measure


@pytest.fixture
def record(request, benchmark, cpus, spin_ns) -> Record:
    """Compare ours with theirs, put it into the table, and give ours to pytest-benchmark."""

    def run(work: str, against: str, ours: Work, theirs: Work, rounds: int = ROUNDS) -> None:
        benchmark.group = f"{work}, against {against}"
        found = compare(work, against, ours, theirs, spin_ns, rounds)
        request.config.stash[ROWS].append(found)
        benchmark.extra_info.update(
            cpus=str(cpus),
            spin_ns=found.spin_ns,
            ratio=found.ratio,
            low=found.low,
            high=found.high,
            seconds=found.ours,
        )
        benchmark.pedantic(ours, rounds=3, iterations=1)

    return run


@pytest.hookimpl(trylast=True)  # below the tables of pytest-benchmark
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[ROWS]
    if not rows:
        return
    terminalreporter.section("their time over ours")
    for line in table(rows):
        terminalreporter.write_line(line)
    terminalreporter.write_line("")
    terminalreporter.write_line(
        "ratio: median of pairwise ratios, A B A B; above 1 ours is faster. ours: one operation. cache line: a bare "
        "round trip between the two cpus, before and after."
    )
