"""Instances, and what is compared with them: interrupts that are answered, and starting something that answers."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import types
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

from multikernel.kernel.process import die_with
from multikernel.machine import Machine

from . import images
from .once import echo_once
from .plain import Eventfd, OsPipe, Semaphore, Signal
from .sides import Cpus, Run, Sample, Tally, Work, measured
from .work import round_trips

Start: TypeAlias = Callable[[], tuple[bytes, Callable[[], object]]]
"""Starts something, and returns its first reply and what ends it again."""

FIRST = b"are you there?"

_INTERRUPTS = 256  # a call of a side
_REPLY = 30.0  # seconds that a reply may take


@contextmanager
def _machine(cpus: Cpus) -> Iterator[Machine]:
    """A machine on both cpus, made by a side that is pinned to the first: its host must not inherit that."""
    os.sched_setaffinity(0, cpus)
    with Machine(cpus=cpus) as machine:
        os.sched_setaffinity(0, cpus[:1])
        yield machine


def _script(entry: str) -> str:
    """An image of one file: were it loaded as the module that it is, the whole package would be its image."""
    return f"{images.__file__}:{entry}"


# --- interrupts: one there, its handler's answer back


@contextmanager
def ipi(cpus: Cpus) -> Iterator[Work]:
    """An IPI to an instance; its handler sends a message."""

    @contextmanager
    def interrupting() -> Iterator[Run]:
        with _machine(cpus) as machine:
            instance = machine.create("answers", cpus=cpus[1])
            instance.load(_script("answer_interrupts"))
            instance.boot()
            with machine.connect("answers") as link:
                link.send(b"this one")

                def run(operations: int) -> Tally:
                    right = 0
                    for _ in range(operations):
                        link.ipi(images.VECTOR)
                        right += int.from_bytes(link.recv(timeout=_REPLY).payload, "little") == 1
                    return Tally(right)

                yield run

    with measured((cpus[0], interrupting)) as work:
        yield work


def pipe_interrupts(cpus: Cpus) -> AbstractContextManager[Work]:
    """A byte by an os.pipe, and one back."""
    return round_trips(cpus, OsPipe(1), OsPipe(1), [b"\x01"] * _INTERRUPTS)


def eventfd_interrupts(cpus: Cpus) -> AbstractContextManager[Work]:
    """An os.eventfd, and another one back."""
    return round_trips(cpus, Eventfd(0), Eventfd(0), [1] * _INTERRUPTS)


def semaphore_interrupts(cpus: Cpus) -> AbstractContextManager[Work]:
    """A multiprocessing.Semaphore is released, and another one back."""
    return round_trips(cpus, Semaphore(0), Semaphore(0), [True] * _INTERRUPTS)


def signal_interrupts(cpus: Cpus) -> AbstractContextManager[Work]:
    """A signal to a process that waits for it, and a byte back by an os.pipe."""
    signals: Sequence[int] = [Signal.NUMBER] * _INTERRUPTS
    return round_trips(cpus, Signal(0), OsPipe(1), signals, [b"\x01"] * _INTERRUPTS)


# --- boot: from the call that starts it to its first reply


def starting_seconds(sample: Sample) -> float:
    """The cost of a start: what ends it again is not part of it."""
    return sum(sample.sides[0].tally.nanoseconds) / 1e9 / sample.operations


def _starts(start: Start) -> Run:
    def run(operations: int) -> Tally:
        right, took = 0, array("Q")
        for _ in range(operations):
            began = time.perf_counter_ns()
            reply, end = start()
            took.append(time.perf_counter_ns() - began)
            end()
            right += reply == FIRST
        return Tally(right, took)

    return run


@contextmanager
def boot(cpus: Cpus) -> Iterator[Work]:
    """`boot()` of a loaded instance, a link to it, a request."""

    @contextmanager
    def starting() -> Iterator[Run]:
        with _machine(cpus) as machine:
            instance = machine.create("echo", cpus=cpus[1])
            instance.load(_script("echo"))

            def start() -> tuple[bytes, Callable[[], object]]:
                instance.boot()
                link = machine.connect("echo")
                reply = link.request(FIRST, timeout=_REPLY).payload

                def end() -> None:
                    link.close()
                    instance.kill()

                return bytes(reply), end

            yield _starts(start)

    with measured((cpus[0], starting)) as work:
        yield work


@contextmanager
def _processes(cpus: Cpus, method: str, *, preloaded: bool = False) -> Iterator[Work]:
    @contextmanager
    def starting() -> Iterator[Run]:
        context: Any = multiprocessing.get_context(method)
        context.set_forkserver_preload([echo_once.__module__] if preloaded else [])
        sys.modules["__main__"] = types.ModuleType("__main__")  # this side's; what a program's imports is no part of it

        def start() -> tuple[bytes, Callable[[], object]]:
            here, there = context.Pipe()
            process = context.Process(target=echo_once, args=(cpus[1], there), daemon=True)
            process.start()
            there.close()
            here.send_bytes(FIRST)
            reply = here.recv_bytes()

            def end() -> None:
                process.join()
                process.close()
                here.close()

            return reply, end

        yield _starts(start)

    with measured((cpus[0], starting)) as work:
        yield work


def forkserver(cpus: Cpus) -> AbstractContextManager[Work]:
    """A multiprocessing.Process by its fork server."""
    return _processes(cpus, "forkserver")


def preloaded_forkserver(cpus: Cpus) -> AbstractContextManager[Work]:
    """The same, by a fork server that has imported what the process needs."""
    return _processes(cpus, "forkserver", preloaded=True)


def spawn(cpus: Cpus) -> AbstractContextManager[Work]:
    """A multiprocessing.Process in a new interpreter."""
    return _processes(cpus, "spawn")


@contextmanager
def fork_and_pipe(cpus: Cpus) -> Iterator[Work]:
    """os.fork and two os.pipes: the least that a new process can cost in Python; it is a copy of this one."""

    def start() -> tuple[bytes, Callable[[], object]]:
        heard, out = os.pipe()
        answered, back = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                die_with(parent)
                os.sched_setaffinity(0, {cpus[1]})
                os.write(back, os.read(heard, len(FIRST)))
            finally:
                os._exit(0)
        os.write(out, FIRST)
        reply = os.read(answered, len(FIRST))

        def end() -> None:
            os.waitpid(pid, 0)
            for descriptor in (heard, out, answered, back):
                os.close(descriptor)

        return reply, end

    @contextmanager
    def starting() -> Iterator[Run]:
        yield _starts(start)

    with measured((cpus[0], starting)) as work:
        yield work
