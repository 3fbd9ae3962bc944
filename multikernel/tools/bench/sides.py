"""The processes of a measurement: each pinned, without garbage collection, starting together, and gone at the end.

A *side* is what one of them does: a function that is called in its process and gives a context manager, which opens
what the side needs, and whose value does n operations and says how many of them went right.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeAlias

from multikernel.kernel.process import die_with

PATIENCE = 60.0
"""Seconds after which a side that says nothing is stuck. Only against hanging."""

_LEAVE = 10.0  # seconds that a side gets to close what it opened
_LINE = 128  # bytes between words that different processes write

_context = multiprocessing.get_context("fork")


Cpus: TypeAlias = tuple[int, int]
"""Of the two sides of most measurements."""


class Wrong(AssertionError):
    """Something else came out than should have. What was measured with it is not shown."""


class Tally(NamedTuple):
    """What one side has to say."""

    right: int
    """Operations that went right."""
    nanoseconds: Sequence[int] = ()
    """What each took, or whatever else the measurement is about; mostly nobody looks that closely."""


Run: TypeAlias = Callable[[int], Tally]
"""Does n operations."""

Side: TypeAlias = Callable[[], AbstractContextManager[Run]]
"""Called in the process of that side."""


class Outcome(NamedTuple):
    """One side's part of a sample. Times in ns; `began` and `ended` are CLOCK_MONOTONIC, the same in every process."""

    tally: Tally
    began: int
    ended: int
    cpu: int
    switches: int
    """Context switches, of both kinds."""


@dataclass(frozen=True)
class Sample:
    """One measurement of `operations` operations. Only the operations were timed, from the first side's start."""

    operations: int
    sides: tuple[Outcome, ...]

    @property
    def seconds(self) -> float:
        """What one operation took."""
        whole = max(side.ended for side in self.sides) - min(side.began for side in self.sides)
        return whole / 1e9 / self.operations


Work: TypeAlias = Callable[[int], Sample]
"""Does n operations in all sides. Raises `Wrong` if not each of them went right in each."""


@contextmanager
def measured(*sides: tuple[int, Side]) -> Iterator[Work]:
    """Give each side a process of its own, forked here, on the cpu that stands with it.

    Raises:
        Wrong: from `Work`: a message was not what was sent, or was not there.
        TimeoutError: from `Work`: nothing came of it.
        Exception: whatever a side raised.
    """
    cpus = [cpu for cpu, _ in sides]
    with ExitStack() as stack:
        gate = _Gate(len(sides), yields=len(set(cpus)) < len(cpus))
        stack.callback(gate.close)
        processes = [stack.enter_context(_process(cpu, gate, number, side)) for number, (cpu, side) in enumerate(sides)]
        _answers(processes)  # nobody starts before all have opened what they need

        def work(operations: int) -> Sample:
            for process in processes:
                process.connection.send(operations)
            outcomes = _answers(processes)
            for outcome in outcomes:
                if outcome.tally.right != operations:
                    raise Wrong(f"{outcome.tally.right} of {operations} operations went right")
            return Sample(operations, outcomes)

        yield work


class _Gate:
    """Where the sides wait for each other, by looking: they go on within a microsecond of each other."""

    def __init__(self, sides: int, *, yields: bool) -> None:
        self._map = mmap.mmap(-1, sides * _LINE)
        self._words = memoryview(self._map).cast("Q")[:: _LINE // 8]
        self._yields = yields  # to another side on the same cpu

    def pass_through(self, number: int) -> None:
        """Wait until each side has come here as often as side `number` has now."""
        words = self._words
        words[number] += 1
        passed = words[number]
        for other in range(len(words)):
            while words[other] < passed:
                if self._yields:
                    os.sched_yield()

    def close(self) -> None:
        self._words.release()


@dataclass
class _Process:
    connection: Connection
    started: Any  # multiprocessing has no public type for it

    def answer(self) -> Any:
        """What it has said: an error of its own is raised."""
        try:
            said = self.connection.recv()
        except EOFError:
            self.started.join()
            raise ChildProcessError(f"one side of the measurement ended with {self.started.exitcode}") from None
        if isinstance(said, BaseException):
            raise said
        return said


def _answers(processes: Sequence[_Process]) -> tuple[Any, ...]:
    """What each says next. One that fails is told at once: the others may wait for it, and would for ever."""
    answers: dict[int, Any] = {}
    while len(answers) < len(processes):
        silent = {process.connection: number for number, process in enumerate(processes) if number not in answers}
        heard = wait(silent, PATIENCE)
        if not heard:
            raise TimeoutError(f"one side of the measurement has said nothing for {PATIENCE:g} s")
        for number in (silent[connection] for connection in silent if connection in heard):
            answers[number] = processes[number].answer()
    return tuple(answers[number] for number in range(len(processes)))


@contextmanager
def _process(cpu: int, gate: _Gate, number: int, side: Side) -> Iterator[_Process]:
    here, there = _context.Pipe()
    started = _context.Process(target=_serve, args=(os.getpid(), cpu, here, there, gate, number, side))
    started.start()
    there.close()
    try:
        yield _Process(here, started)
    except BaseException:
        started.kill()  # it may be in the middle of anything
        raise
    finally:
        here.close()
        started.join(_LEAVE)
        if started.exitcode is None:
            started.kill()
            started.join()
        started.close()


def _serve(parent: int, cpu: int, here: Connection, control: Connection, gate: _Gate, number: int, side: Side) -> None:
    here.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's, which ends us
    die_with(parent)
    os.sched_setaffinity(0, {cpu})
    gc.disable()
    try:
        with side() as run:
            control.send(None)
            while True:
                operations = control.recv()
                control.send(_timed(run, operations, gate, number))
    except EOFError:  # the parent has seen enough
        return
    except Exception as error:  # noqa: BLE001 - the parent raises it
        with contextlib.suppress(BrokenPipeError):
            _send_error(control, error)


def _timed(run: Run, operations: int, gate: _Gate, number: int) -> Outcome:
    gate.pass_through(number)
    switches, cpu = _switches(), time.process_time_ns()
    began = time.perf_counter_ns()
    tally = run(operations)
    ended = time.perf_counter_ns()
    return Outcome(tally, began, ended, time.process_time_ns() - cpu, _switches() - switches)


def _switches() -> int:
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nvcsw + usage.ru_nivcsw


def _send_error(control: Connection, error: Exception) -> None:
    try:
        control.send(error)
    except (TypeError, AttributeError, ValueError):  # it does not pickle
        control.send(RuntimeError(f"{type(error).__name__}: {error}"))
