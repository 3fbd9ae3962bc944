"""Two pinned processes and two rings: a million messages of random sizes each way at once, every one checked."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable

import pytest

import multikernel as mk
from tests.shm.children import Child, Words

COUNT = 1_000_000
BATCH = 200
BODIES = 4096
LIMIT = 200.0

pytestmark = [pytest.mark.stress, pytest.mark.slow, pytest.mark.two_cpus, pytest.mark.timeout(240)]


class Messages:
    """The messages of one direction: a number, and one of some thousand bodies of random sizes."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.bodies = [
            chance.randbytes(chance.choice((0, 8, 50, 100, 1000)) * chance.randrange(4)) for _ in range(BODIES)
        ]

    def batch(self, start: int, end: int) -> list[bytes]:
        bodies = self.bodies
        return [i.to_bytes(4, "little") + bodies[i * 2654435761 % BODIES] for i in range(start, end)]


def send_all(tx: mk.Sender, messages: Messages, count: int) -> None:
    """One at a time and in batches, in turn."""
    for start in range(0, count, BATCH):
        batch = messages.batch(start, min(start + BATCH, count))
        if start // BATCH % 10 == 0:
            for message in batch:
                tx.send(message, timeout=LIMIT)
        else:
            assert tx.send_many(batch, timeout=LIMIT) == len(batch)
    tx.close()


def receive_all(rx: mk.Receiver, messages: Messages, count: int) -> None:
    received = 0
    while received < count:
        if received // BATCH % 10 == 5:
            batch = [rx.recv(timeout=LIMIT)]
        else:
            batch = rx.recv_many(BATCH, timeout=LIMIT)
        expected = messages.batch(received, received + len(batch))
        assert batch == expected, f"message {received} or one of the {len(batch)} from it on is not what was sent"
        received += len(batch)
    with pytest.raises(mk.Closed):
        rx.recv(timeout=LIMIT)
    rx.close()


def both(tx: mk.Sender, rx: mk.Receiver, out: Messages, back: Messages, cpu: int, count: int) -> None:
    """Send and receive at once: each end has a thread of its own, and both stay on one cpu."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        os.sched_setaffinity(0, {cpu})
        try:
            work()
        except BaseException as error:  # noqa: BLE001 it is raised below
            errors.append(error)

    threads = [
        threading.Thread(target=guarded, args=(lambda: send_all(tx, out, count),)),
        threading.Thread(target=guarded, args=(lambda: receive_all(rx, back, count),)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error


@pytest.mark.parametrize("capacity", ["16K", "1M"])
def test_a_million_messages_each_way_arrive_each_as_it_was_sent(cpus, capacity):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    out, back = Messages(seed), Messages(seed + 1)
    count = COUNT if capacity == "1M" else COUNT // 3  # a small ring is full and empty all the time: that is its point
    with mk.Ring(capacity) as there, mk.Ring(capacity) as here:
        ours, theirs = (there.sender(), here.receiver()), (here.sender(), there.receiver())

        def other(words: Words) -> None:
            both(*theirs, back, out, cpus[1], count)

        with Child(other) as child:
            both(*ours, out, back, cpus[0], count)
            assert child.wait() == 0


@pytest.mark.parametrize("wait", ["adaptive", "park"])
def test_a_hundred_thousand_round_trips_stall_nowhere(cpus, wait):
    """Each side sleeps or spins before every message: no wake-up is lost."""
    count = 100_000 if wait == "adaptive" else 20_000
    with (
        mk.Ring(4096) as there,
        mk.Ring(4096) as here,
        there.sender() as tx,
        here.receiver(wait=wait) as rx,
    ):

        def echo(words: Words) -> None:
            os.sched_setaffinity(0, {cpus[1]})
            with there.receiver(wait=wait) as mine, here.sender() as yours:
                for message in mine:
                    yours.send(message)

        with Child(echo) as child:
            before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {cpus[0]})
            try:
                for number in range(count):
                    message = number.to_bytes(8, "little")
                    tx.send(message)
                    assert rx.recv(timeout=LIMIT) == message
            finally:
                os.sched_setaffinity(0, before)
            tx.close()
            assert child.wait() == 0
