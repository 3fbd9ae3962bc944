"""What every bench gets: two cpus, a comparison with another one, and a place in the table at the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import pytest

from multikernel.tools.bench.cache_line import spin_ns
from multikernel.tools.bench.compare import Case, Comparison, Contender, Effort, in_turn, table

ROWS = pytest.StashKey[list[Comparison]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


@pytest.fixture(scope="session")
def cpus() -> tuple[int, int]:
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        pytest.skip("needs two cpus, and this process may use one only")
    return usable[0], usable[1]


@pytest.fixture
def record(request, benchmark, cpus) -> Callable[[Case, Contender], None]:
    """Compare ours with theirs, put it into the table, and give ours to pytest-benchmark."""

    def run(case: Case, other: Contender) -> None:
        benchmark.group = f"{case.work}, against {other.name}"
        with case.ours.make(cpus) as ours, other.make(cpus) as theirs:
            found = in_turn(case, other, ours, theirs, partial(spin_ns, cpus), Effort())
            request.config.stash[ROWS].append(found)
            benchmark.extra_info.update(
                cpus=str(cpus),
                spin_ns=found.spin_ns,
                ratio=found.ratio,
                low=found.low,
                high=found.high,
                seconds=found.ours,
                operations=case.ours.least,
            )
            benchmark.pedantic(ours, args=(case.ours.least,), rounds=3)

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
