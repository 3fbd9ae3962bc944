"""M15: objects, pickled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import multikernel as mk
from benches.compare import peers
from benches.compare.peers import Peers
from benches.compare.rows import Goal, Planned, Row
from multikernel.tools.bench.cases import OURS
from multikernel.tools.bench.channels import PREPARED, Receive, Send
from multikernel.tools.bench.compare import Case, Contender
from multikernel.tools.bench.sides import Cpus, Work
from multikernel.tools.bench.work import stream

SIZE = 100  # bytes of a pickle
OBJECTS = [{"number": each, "name": f"object {each:03}", "data": bytes([each]) * 40} for each in range(PREPARED)]


class OurQueue:
    """`mk.Queue`."""

    def __init__(self, _size: int) -> None:
        self._queue = mk.Queue()

    def sender(self) -> Send:
        return self._queue.put

    def receiver(self) -> Receive:
        return self._queue.get

    def close(self) -> None:
        self._queue.close()
        self._queue.join_thread()


class OurPipe:
    """`mk.Pipe`."""

    def __init__(self, _size: int) -> None:
        self._receiving, self._sending = mk.Pipe(duplex=False)

    def sender(self) -> Send:
        return self._sending.send

    def receiver(self) -> Receive:
        return self._receiving.recv

    def close(self) -> None:
        self._sending.close()
        self._receiving.close()


def contender(name: str, make: Callable[[int], Any]) -> Contender:
    def ready(cpus: Cpus) -> AbstractContextManager[Work]:
        return stream(cpus, make(SIZE), OBJECTS)

    return Contender(name, ready)


def objects(known: Peers) -> list[Planned]:
    """M15."""
    others = {name: contender(name, make) for name, make in known.of(peers.OBJECTS).items()}
    pipe = others.pop("multiprocessing.Pipe")
    return [
        Planned(
            Case(f"object of {SIZE} B, Queue", contender(OURS, OurQueue), tuple(others.values())),
            {"multiprocessing.Queue": Goal(least=15)},
        ),
        Planned(
            Case(f"object of {SIZE} B, Pipe", contender(OURS, OurPipe), (pipe,)),
            {"multiprocessing.Pipe": Goal(least=6)},
        ),
    ]


ROWS = {"M15": Row("objects of 100 B, pickled", objects)}
