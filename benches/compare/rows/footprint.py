"""I2 and I8: what an instance costs to start if its image is native, and in memory."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import multikernel as mk
from benches.compare.peers import Peers
from benches.compare.rows import Count, Goal, Planned, Row
from multikernel.tools.bench import images
from multikernel.tools.bench.compare import Case, Contender, Effort
from multikernel.tools.bench.instances import starting_seconds
from multikernel.tools.bench.sides import Cpus, Run, Tally, Work, measured

MANY = 64
FEW = 3  # where no time is to be spent on it
ECHO = Path(__file__).parents[3] / "examples/native/echo.c"
_REPLY = 30.0  # seconds


@contextmanager
def native_echo() -> Iterator[str]:
    """The program of the native example, built."""
    with tempfile.TemporaryDirectory() as directory:
        program = f"{directory}/echo"
        compiler = shutil.which("cc") or "gcc"
        subprocess.run(
            [compiler, "-O2", f"-I{mk.get_include()}", str(ECHO), mk.get_library(), "-pthread", "-o", program],
            check=True,
        )
        yield program


# --- I2


@contextmanager
def boot(cpus: Cpus) -> Iterator[Work]:
    """`boot()` of a loaded native instance, until it is active."""

    @contextmanager
    def starting() -> Iterator[Run]:
        os.sched_setaffinity(0, cpus)
        with native_echo() as program, mk.Machine(cpus=cpus) as machine:
            os.sched_setaffinity(0, cpus[:1])
            instance = machine.create("echo", cpus=cpus[1])
            instance.load(program)

            def run(operations: int) -> Tally:
                took = array("Q")
                for _ in range(operations):
                    began = time.perf_counter_ns()
                    instance.boot()
                    took.append(time.perf_counter_ns() - began)
                    instance.kill()
                return Tally(operations, took)

            yield run

    with measured((cpus[0], starting)) as work:
        yield work


@contextmanager
def spawned(cpus: Cpus) -> Iterator[Work]:
    """posix_spawn of the same program, until main has said its first word: that it was not booted as an image."""

    @contextmanager
    def starting() -> Iterator[Run]:
        with native_echo() as program:

            def run(operations: int) -> Tally:
                right, took = 0, array("Q")
                for _ in range(operations):
                    heard, said = os.pipe()
                    began = time.perf_counter_ns()
                    pid = os.posix_spawn(program, [program], {}, file_actions=[(os.POSIX_SPAWN_DUP2, said, 2)])
                    right += os.read(heard, 5) == b"echo:"
                    took.append(time.perf_counter_ns() - began)
                    os.waitpid(pid, 0)
                    os.close(heard)
                    os.close(said)
                return Tally(right, took)

            yield run

    with measured((cpus[0], starting)) as work:
        yield work


def boots(_: Peers) -> list[Planned]:
    """I2."""
    ours, theirs = Contender("multikernel", boot, least=1), Contender("posix_spawn", spawned, least=1)
    case = Case("boot of a native image, until active", ours, (theirs,), starting_seconds)
    return [Planned(case, {"posix_spawn": Goal(most=2.0)})]


# --- I8


def private_bytes(pid: int) -> int:
    """Memory that a process shares with nobody: what one more of it costs."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


@contextmanager
def instances(many: int, image: str) -> Iterator[list[int]]:
    """So many instances, each linked to this program, which has had a reply of each."""
    with mk.Machine(memory="1G") as machine, ExitStack() as opened:
        pids = []
        for number in range(many):
            # With `core` a process of the same user may look at what memory it has.
            made = machine.create(f"i{number}", memory="8M", exclusive=False, core=True)
            made.load(image)
            made.boot()
            link = opened.enter_context(machine.connect(made.name, capacity="64K"))
            link.request(b"are you there?", timeout=_REPLY)
            pids.append(made.pid)
        yield pids


def _answer(connection: Any) -> None:
    while (message := connection.recv_bytes()) != b"end":
        connection.send_bytes(message)


@contextmanager
def workers(many: int, method: str) -> Iterator[list[int]]:
    """So many processes of multiprocessing, each with a Pipe to this one, which has had a reply of each."""
    context: Any = multiprocessing.get_context(method)
    made = []
    for _ in range(many):
        here, there = context.Pipe()
        process = context.Process(target=_answer, args=(there,), daemon=True)
        process.start()
        there.close()
        here.send_bytes(b"are you there?")
        here.recv_bytes()
        made.append((process, here))
    try:
        yield [process.pid for process, _ in made]
    finally:
        for process, here in made:
            here.send_bytes(b"end")
            process.join()
            here.close()


def each(running: AbstractContextManager[list[int]]) -> float:
    """Private memory of each, KiB: the mean."""
    with running as pids:
        return mean(map(private_bytes, pids)) / 1024


def memory(_cpus: Cpus, effort: Effort, _peers: Peers) -> Iterator[Count]:
    """I8."""
    own = "private memory of each, KiB"
    many = MANY if effort.seconds else FEW
    with native_echo() as program:
        python, native = each(instances(many, f"{images.__file__}:echo")), each(instances(many, program))
    methods: dict[str, Callable[[], AbstractContextManager[list[int]]]] = {
        method: partial(workers, many, method) for method in ("forkserver", "spawn")
    }
    theirs = {method: each(running()) for method, running in methods.items()}
    yield Count(f"{many} instances, Python", own, python)
    yield Count(f"{many} instances, native", own, native, most=1024)
    for method, memory_ in theirs.items():
        yield Count(f"{many} multiprocessing workers, {method}", own, memory_)
        yield Count(f"an instance in Python over a worker, {method}", "ratio of these", python / memory_, most=0.5)


ROWS = {
    "I2": Row("from the call that boots a native instance to its main", boots),
    "I8": Row("memory of many instances, each linked to the program that made it", counts=memory),
}
