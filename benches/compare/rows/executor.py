"""M16: short tasks in another process."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager

import multikernel as mk
from benches.compare.peers import Peers
from benches.compare.rows import Goal, Planned, Row
from multikernel.tools.bench.cases import OURS
from multikernel.tools.bench.compare import Case, Contender
from multikernel.tools.bench.sides import Cpus, Run, Tally, Work, measured

POOL = "ProcessPoolExecutor"
_LOOPS = 20  # about a microsecond


def task(number: int) -> int:
    """About a microsecond's work."""
    for _ in range(_LOOPS):
        number ^= 1
    return number + 1


@contextmanager
def mapping(cpus: Cpus, make: Callable[[int], Executor]) -> Iterator[Work]:
    """`map` with chunks of one task. One worker, on the second cpu."""

    @contextmanager
    def calling() -> Iterator[Run]:
        os.sched_setaffinity(0, cpus)
        with make(cpus[1]) as executor:
            os.sched_setaffinity(0, cpus[:1])

            def run(operations: int) -> Tally:
                results = executor.map(task, range(operations), chunksize=1)
                return Tally(sum(found == number + 1 for number, found in enumerate(results)))

            run(1)  # the worker is there
            yield run

    with measured((cpus[0], calling)) as work:
        yield work


def ours(cpu: int) -> Executor:
    executor: Executor = mk.CoreExecutor(cpus=[cpu])
    return executor


def theirs(cpu: int) -> Executor:
    return ProcessPoolExecutor(
        1, multiprocessing.get_context("fork"), initializer=os.sched_setaffinity, initargs=(0, {cpu})
    )


def executors(_: Peers) -> list[Planned]:
    """M16."""
    case = Case(
        "task of 1 us",
        Contender(OURS, lambda cpus: mapping(cpus, ours)),
        (Contender(POOL, lambda cpus: mapping(cpus, theirs)),),
    )
    return [Planned(case, {POOL: Goal(least=10)})]


ROWS = {"M16": Row("map of tasks of a microsecond, in chunks of one", executors)}
