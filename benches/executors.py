"""Executors that take part, as `Work`. The calling program is not pinned: it runs beside the workers, as it does."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import multikernel as mk
from benches.peers import Wrong

if TYPE_CHECKING:
    from benches.measure import Work

PEER = "ProcessPoolExecutor"

_context = multiprocessing.get_context("fork")


def microsecond(value: int) -> int:
    """A task of some microsecond: thirty additions or so."""
    total = 0
    for n in range(30):
        total += n
    return value + total


def millisecond(value: int) -> int:
    """A task of a millisecond of the processor's time."""
    until = time.thread_time_ns() + 1_000_000
    while time.thread_time_ns() < until:
        pass
    return value


@contextmanager
def core(cpus: tuple[int, int]) -> Iterator[Executor]:
    with mk.CoreExecutor(cpus=cpus, mp_context=_context, initializer=gc.disable) as executor:
        executor.submit(microsecond, 0).result()
        yield executor


@contextmanager
def process_pool(cpus: tuple[int, int]) -> Iterator[Executor]:
    with ProcessPoolExecutor(len(cpus), _context, gc.disable) as executor:
        executor.submit(microsecond, 0).result()
        yield executor


def mapping(executor: Executor, task: Callable[[int], int], count: int, chunksize: int) -> Work:
    """Seconds a task of a `map`, until the last result is there."""
    values = range(count)
    expected = list(map(task, values))

    def work() -> float:
        return _timed(lambda: list(executor.map(task, values, chunksize=chunksize)), expected)

    return work


def submitting(executor: Executor, count: int) -> Work:
    """Seconds a task that is submitted by itself, until the last result is there."""
    expected = list(map(microsecond, range(count)))

    def run() -> list[int]:
        futures = [executor.submit(microsecond, n) for n in range(count)]
        return [future.result() for future in futures]

    return lambda: _timed(run, expected)


def asking(executor: Executor, count: int) -> Work:
    """Seconds from a submit to its result."""
    expected = list(map(microsecond, range(count)))
    return lambda: _timed(lambda: [executor.submit(microsecond, n).result() for n in range(count)], expected)


def _timed(run: Callable[[], list[int]], expected: list[int]) -> float:
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter()
        found = run()
        took = time.perf_counter() - began
    finally:
        gc.enable()
    if found != expected:
        raise Wrong("other results came than were asked for")
    return took / len(expected)
