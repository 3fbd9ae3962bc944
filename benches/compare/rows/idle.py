"""M14: what waiting costs when nothing comes."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import multikernel as mk
from benches.compare.peers import Peers
from benches.compare.rows import Count, Row
from multikernel.tools.bench import images
from multikernel.tools.bench.compare import Effort
from multikernel.tools.bench.sides import Cpus

SAMPLES = 100
"""So many samples of another row is how long it is watched: ten seconds."""

LANES = 64
_SETTLES = 10.0  # seconds, at most
_APART = 0.1  # seconds between two looks


def watched(pid: int) -> tuple[int, int]:
    """Context switches of both kinds, and ns on a cpu, of all threads of a process."""
    switches = cpu = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if "voluntary_ctxt_switches" in line:
                switches += int(line.split()[1])
        cpu += int((task / "schedstat").read_text().split()[0])
    return switches, cpu


def asleep(seconds: float) -> None:
    """Let time go by: it is what is measured."""
    select.select([], [], [], seconds)


@contextmanager
def instance(cpus: Cpus) -> Iterator[int]:
    """An instance that waits for messages."""
    with mk.Machine(cpus=cpus) as machine:
        made = machine.create("parked", cpus=cpus[1])
        made.load(f"{images.__file__}:echo")
        made.boot(until="ready")
        yield made.pid


@contextmanager
def forked(receive: Callable[[], object]) -> Iterator[int]:
    """A process that receives, until it is killed."""
    pid = os.fork()
    if pid == 0:
        try:
            receive()
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@contextmanager
def ring(_: Cpus) -> Iterator[int]:
    """A process in `recv` of a ring whose sender lives and says nothing."""
    with mk.Ring() as made:
        tx, rx = made.sender(), made.receiver()
        tx.send(b"first")
        with forked(lambda: [rx.recv() for _ in range(2)]) as pid:
            yield pid


@contextmanager
def mailbox(_: Cpus) -> Iterator[int]:
    """A process in `recv` of a mailbox whose many senders live and say nothing."""
    with ExitStack() as opened:
        made = opened.enter_context(mk.Mailbox("4K"))
        receiver = made.receiver()
        for _ in range(LANES):
            opened.enter_context(closing(made.sender())).send(b"first")
        with forked(lambda: [receiver.recv() for _ in range(LANES + 1)]) as pid:
            receiver.close()
            yield pid


PARKED: dict[str, Callable[[Cpus], AbstractContextManager[int]]] = {
    "a parked instance": instance,
    "a process in recv of a ring": ring,
    f"a process in recv of a mailbox with {LANES} senders": mailbox,
}


def idle(cpus: Cpus, effort: Effort, _: Peers) -> Iterator[Count]:
    """M14."""
    for what, parked in PARKED.items():
        with parked(cpus) as pid:
            settle(pid)
            seconds = effort.seconds * SAMPLES
            before = watched(pid)
            asleep(seconds)
            after = watched(pid)
        yield Count(f"{what}, {seconds:g} s", "context switches", after[0] - before[0], most=0)
        yield Count(f"{what}, {seconds:g} s", "cpu time, ns", after[1] - before[1], most=0)


def settle(pid: int) -> None:
    """Wait until it has gone to sleep for good: the first sleeps are short."""
    until = time.monotonic() + _SETTLES
    while True:
        before = watched(pid)
        asleep(_APART)
        if watched(pid) == before or time.monotonic() > until:
            return


ROWS = {"M14": Row("what is parked, and nothing comes", counts=idle)}
