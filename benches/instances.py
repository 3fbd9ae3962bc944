"""Who takes part in the benches of instances: interrupts, and starting something that answers. See `peers`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import multikernel as mk
from benches import images
from benches.partner import partner, pinned
from benches.peers import Cpus, Wrong, pipe
from multikernel.kernel.process import die_with

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from benches.measure import Work

# --- interrupts: one there, its handler's answer back


@contextmanager
def _interrupts(cpus: Cpus, rounds: int, here: Callable[[], bool]) -> Iterator[Work]:
    """`here` interrupts once, and says whether the right answer came."""
    with pinned(cpus[0]):

        def work() -> float:
            began = time.perf_counter()
            right = sum(here() for _ in range(rounds))
            took = time.perf_counter() - began
            if right != rounds:
                raise Wrong(f"{right} of {rounds} interrupts were answered with their number")
            return took / rounds

        yield work


@contextmanager
def ipi(cpus: Cpus, rounds: int) -> Iterator[Work]:
    """An IPI to an instance; its handler sends a message."""
    with mk.Machine(cpus=cpus) as machine:
        instance = machine.create("answers", cpus=cpus[1])
        instance.load(images.answer_interrupts)
        instance.boot()
        with machine.connect("answers") as link:
            link.send(b"this one")

            def here() -> bool:
                link.ipi(images.VECTOR)
                return int.from_bytes(link.recv(timeout=30).payload, "little") == 1

            with _interrupts(cpus, rounds, here) as work:
                yield work


@contextmanager
def pipe_interrupts(cpus: Cpus, rounds: int) -> Iterator[Work]:
    """A byte by an os.pipe, and one back."""
    with pipe() as (out, heard), pipe() as (back, answered):

        def there(n: int) -> None:
            for _ in range(n):
                os.write(back, os.read(heard, 1))

        def here() -> bool:
            os.write(out, b"\x01")
            return os.read(answered, 1) == b"\x01"

        with _with_partner(cpus, rounds, here, there) as work:
            yield work


@contextmanager
def semaphore_interrupts(cpus: Cpus, rounds: int) -> Iterator[Work]:
    """A multiprocessing.Semaphore is released, and another one back. Nothing is carried."""
    context = multiprocessing.get_context("fork")
    out, back = context.Semaphore(0), context.Semaphore(0)

    def there(n: int) -> None:
        for _ in range(n):
            out.acquire()
            back.release()

    def here() -> bool:
        out.release()
        return back.acquire(timeout=30)

    with _with_partner(cpus, rounds, here, there) as work:
        yield work


@contextmanager
def signal_interrupts(cpus: Cpus, rounds: int) -> Iterator[Work]:
    """A signal to a process that waits for it, and a byte back by an os.pipe."""
    with pipe() as (back, answered):

        def there(n: int) -> None:
            os.write(back, os.getpid().to_bytes(4, "little"))
            for _ in range(n):
                os.write(back, bytes([signal.sigwait({signal.SIGUSR1}) == signal.SIGUSR1]))

        pids: list[int] = []

        def here() -> bool:
            os.kill(pids[-1], signal.SIGUSR1)
            return os.read(answered, 1) == b"\x01"

        def begin() -> None:
            pids.append(int.from_bytes(os.read(answered, 4), "little"))

        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # inherited by the partner
        try:
            with _with_partner(cpus, rounds, here, there, begin) as work:
                yield work
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _with_partner(
    cpus: Cpus,
    rounds: int,
    here: Callable[[], bool],
    there: Callable[[int], object],
    begin: Callable[[], None] = lambda: None,
) -> Iterator[Work]:
    with partner(cpus[1], there) as start, _interrupts(cpus, rounds, here) as interrupt:

        def work() -> float:
            other = start(rounds)
            begin()
            seconds = interrupt()
            other.result()
            return seconds

        yield work


INTERRUPTS = {
    "os.pipe": pipe_interrupts,
    "multiprocessing.Semaphore": semaphore_interrupts,
    "signal": signal_interrupts,
}

# --- boot: from the call that starts it to its first reply

FIRST = b"are you there?"


def _timed(start: Callable[[], tuple[bytes, Callable[[], object]]]) -> float:
    """`start` returns the first reply, and what ends it again, which is not timed."""
    began = time.perf_counter()
    reply, end = start()
    took = time.perf_counter() - began
    end()
    if reply != FIRST:
        raise Wrong(f"the first reply was {reply!r}")
    return took


@contextmanager
def boot(cpus: Cpus) -> Iterator[Work]:
    """`boot()` of a loaded instance, a link to it, a request."""
    with mk.Machine(cpus=cpus) as machine:
        instance = machine.create("echo", cpus=cpus[1])
        instance.load(images.echo)

        def start() -> tuple[bytes, Callable[[], object]]:
            instance.boot()
            link = machine.connect("echo")
            reply = link.request(FIRST).payload

            def end() -> None:
                link.close()
                instance.kill()

            return bytes(reply), end

        with pinned(cpus[0]):
            yield lambda: _timed(start)


@contextmanager
def _processes(cpus: Cpus, method: str) -> Iterator[Work]:
    context: Any = multiprocessing.get_context(method)

    def start() -> tuple[bytes, Callable[[], object]]:
        here, there = context.Pipe()
        process = context.Process(target=_echo_in_child, args=(cpus[1], there), daemon=True)
        process.start()
        there.close()
        here.send_bytes(FIRST)
        reply = here.recv_bytes()

        def end() -> None:
            process.join()
            process.close()
            here.close()

        return reply, end

    with pinned(cpus[0]):
        yield lambda: _timed(start)


def _echo_in_child(cpu: int, connection: Connection) -> None:
    os.sched_setaffinity(0, {cpu})
    connection.send_bytes(connection.recv_bytes())


@contextmanager
def forkserver(cpus: Cpus) -> Iterator[Work]:
    """A multiprocessing.Process by its fork server, which has imported nothing of ours but this module."""
    with _processes(cpus, "forkserver") as work:
        yield work


@contextmanager
def spawn(cpus: Cpus) -> Iterator[Work]:
    """A multiprocessing.Process in a new interpreter."""
    with _processes(cpus, "spawn") as work:
        yield work


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

    with pinned(cpus[0]):
        yield lambda: _timed(start)


BOOTS = {
    "os.fork and os.pipe": fork_and_pipe,
    "multiprocessing, forkserver": forkserver,
    "multiprocessing, spawn": spawn,
}
