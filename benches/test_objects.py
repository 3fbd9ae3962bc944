"""Objects through pipes and queues: ours and multiprocessing's, whose names and behaviour they have."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: TID253
import pytest

import multikernel as mk
from benches import peers

if TYPE_CHECKING:
    from benches.measure import Work

OBJECTS: dict[str, Callable[[int], Any]] = {
    "bytes of 100 B": lambda i: bytes([i]) * 100,
    "a dict of 100 B": lambda i: {"id": i, "name": "x" * 40, "values": [1.5, 2.5, float(i)], "done": False},
}
ARRAY_BYTES = 1 << 20


@contextmanager
def stream(cpus: peers.Cpus, rounds: int, send: Any, receive: Any, objects: list[Any]) -> Iterator[Work]:
    """`Work` of a stream of objects, each compared with what it should be."""

    def send_all() -> None:
        for _ in range(rounds):
            for value in objects:
                send(value)

    def receive_all(n: int) -> int:
        right = 0
        for _ in range(n):
            for value in objects:
                right += same(receive(), value)
        return right

    with peers.one_way(cpus, rounds, send_all, receive_all) as work:
        yield work


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, np.ndarray):  # all of it would be most of the time
        return bool(found[0] == expected[0] and found[-1] == expected[-1] and len(found) == len(expected))
    return bool(found == expected)


def pipe(make: Any) -> tuple[Any, Any]:
    reader, writer = make(False)
    return writer.send, reader.recv


def through_queue(make: Any) -> tuple[Any, Any]:
    queue = make()
    return queue.put, queue.get


ROWS = {
    "Pipe": (pipe, mk.Pipe, multiprocessing.Pipe),
    "Queue": (through_queue, mk.Queue, multiprocessing.Queue),
    "SimpleQueue": (through_queue, mk.SimpleQueue, multiprocessing.SimpleQueue),
}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("what", OBJECTS)
def test_object(record, cpus, kind, what):
    """A stream of small objects."""
    rounds = 40
    ends, ours, theirs = ROWS[kind]
    objects = [OBJECTS[what](i) for i in range(peers.PREPARED)]
    with (
        stream(cpus, rounds, *ends(ours), objects) as our_work,
        stream(cpus, rounds, *ends(theirs), objects) as their_work,
    ):
        record(f"{kind}, {what}", f"multiprocessing.{kind}", our_work, their_work)


@pytest.mark.parametrize("kind", ROWS)
def test_array(record, cpus, kind):
    """A stream of arrays of 1 MiB, copied."""
    ends, ours, theirs = ROWS[kind]
    objects = [np.full(ARRAY_BYTES // 8, i, dtype="u8") for i in range(4)] * (peers.PREPARED // 4)
    with (
        stream(cpus, 1, *ends(ours), objects) as our_work,
        stream(cpus, 1, *ends(theirs), objects) as their_work,
    ):
        record(f"{kind}, array of 1 MiB", f"multiprocessing.{kind}", our_work, their_work)
