"""Every way to send and to receive, mixed at random between two processes, and either of them killed at any moment.

Some seconds here; MULTIKERNEL_STRESS=60 makes it some minutes.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import multikernel as mk
from tests.shm.children import Child, Words

FACTOR = int(os.environ.get("MULTIKERNEL_STRESS", "1"))
SECONDS = 2.0 * FACTOR
LIMIT = 60.0
CAPACITIES = ("4K", "16K", "256K")
POLICIES = ("adaptive", "park", "spin")

pytestmark = [pytest.mark.stress, pytest.mark.slow, pytest.mark.timeout(120 + 30 * FACTOR)]


@dataclass
class Stream:
    """The messages of one ring, one after the other: both sides make the same ones from the same seed."""

    seed: int
    longest: int

    def __iter__(self) -> Iterator[bytes]:
        chance = random.Random(self.seed)
        body = chance.randbytes(2 * self.longest)
        number = 0
        while True:
            length = chance.choice((0, 1, 8, 64, chance.randrange(600), chance.randrange(self.longest)))
            start = chance.randrange(self.longest)
            yield number.to_bytes(8, "little") + body[start : start + length]
            number += 1


class Sending:
    """One end of a stream, by calls chosen at random."""

    def __init__(self, tx: mk.Sender, stream: Stream, seed: int) -> None:
        self.tx = tx
        self.messages = iter(stream)
        self.chance = random.Random(seed)
        self.sent = 0
        self.digest = hashlib.blake2b()

    def step(self) -> None:
        n = self.chance.choice((1, 2, 7, 40))
        batch = [next(self.messages) for _ in range(n)]
        self.chance.choice((self.one_by_one, self.at_once, self.trying, self.in_pieces, self.in_place))(batch)
        self.sent += n
        for message in batch:
            self.digest.update(message)

    def one_by_one(self, batch: list[bytes]) -> None:
        for message in batch:
            self.tx.send(message, timeout=LIMIT)

    def at_once(self, batch: list[bytes]) -> None:
        assert self.tx.send_many(batch, timeout=LIMIT) == len(batch)

    def trying(self, batch: list[bytes]) -> None:
        while batch := batch[self.tx.try_send_many(batch) :]:
            self.tx.send(batch.pop(0), timeout=LIMIT)

    def in_pieces(self, batch: list[bytes]) -> None:
        for message in batch:
            cut = self.chance.randrange(len(message) + 1)
            self.tx.send((message[:cut], bytearray(message[cut:])), timeout=LIMIT)

    def in_place(self, batch: list[bytes]) -> None:
        for message in batch:
            with self.tx.reserve(len(message), timeout=LIMIT) as view:
                view[:] = message


class Receiving:
    """The other end: what comes must be the stream, to the byte."""

    def __init__(self, rx: mk.Receiver, stream: Stream, seed: int) -> None:
        self.rx = rx
        self.expected = iter(stream)
        self.chance = random.Random(seed)
        self.received = 0
        self.digest = hashlib.blake2b()

    def step(self) -> None:
        call = self.chance.choice((self.one, self.several, self.trying, self.a_look, self.some_looks, self.into))
        for message in call():
            assert message == next(self.expected), f"message {self.received} is not what was sent"
            self.received += 1
            self.digest.update(message)

    def one(self) -> list[bytes]:
        return [self.rx.recv(timeout=LIMIT)]

    def several(self) -> list[bytes]:
        return self.rx.recv_many(self.chance.choice((1, 3, 300)), timeout=LIMIT)

    def trying(self) -> list[bytes]:
        message = self.rx.try_recv()
        return [] if message is None else [message]

    def a_look(self) -> list[bytes]:
        with self.rx.peek(timeout=LIMIT) as view:
            return [bytes(view)]

    def some_looks(self) -> list[bytes]:
        with self.rx.peek_many(self.chance.choice((1, 5, 100)), timeout=LIMIT) as views:
            return [bytes(view) for view in views]

    def into(self) -> list[bytes]:
        buffer = bytearray(5000)
        length = self.rx.recv_into(buffer, timeout=LIMIT)
        return [bytes(buffer[:length])]


@dataclass
class Case:
    """A ring, and what goes through it."""

    seed: int
    capacity: str
    waits: tuple[str, str]

    @classmethod
    def random(cls, seed: int) -> Case:
        chance = random.Random(seed)
        return cls(seed, chance.choice(CAPACITIES), (chance.choice(POLICIES), chance.choice(POLICIES)))

    @property
    def stream(self) -> Stream:
        return Stream(self.seed, 4000 if self.capacity == "4K" else 4900)

    def sender(self, ring: mk.Ring) -> Sending:
        return Sending(ring.sender(wait=self.waits[0]), self.stream, self.seed + 1)

    def receiver(self, ring: mk.Ring) -> Receiving:
        return Receiving(ring.receiver(wait=self.waits[1]), self.stream, self.seed + 2)


@pytest.fixture
def seed() -> int:
    seed = int(os.environ.get("MULTIKERNEL_SEED", "0")) or random.randrange(1 << 32)
    print(f"MULTIKERNEL_SEED={seed}")  # noqa: T201 shown when the test fails
    return seed


@pytest.mark.parametrize("wait", POLICIES)
def test_every_way_to_send_meets_every_way_to_receive(seed, wait):
    for capacity in CAPACITIES:
        case = Case(seed, capacity, (wait, wait))
        with mk.Ring(capacity) as ring:
            sending, receiving = case.sender(ring), case.receiver(ring)

            def send(words: Words, sending=sending) -> None:
                end = time.monotonic() + SECONDS / len(POLICIES)
                while time.monotonic() < end:
                    sending.step()
                sending.tx.close()
                words.say([sending.sent, sending.digest.hexdigest()])

            with Child(send) as child:
                with pytest.raises(mk.Closed):  # noqa: PT012
                    while True:
                        receiving.step()
                assert child.hear() == [receiving.received, receiving.digest.hexdigest()]
                assert child.wait() == 0
            receiving.rx.close()


def test_whoever_is_killed_at_any_moment_the_other_has_an_exact_prefix_and_is_told(seed):
    """And the next ring goes on as if nothing had been: both ends are made again and again."""
    chance = random.Random(seed)
    for round_ in range(40 * FACTOR):
        case = Case.random(seed + round_)
        with mk.Ring(case.capacity) as ring:
            sending, receiving = case.sender(ring), case.receiver(ring)

            def send(words: Words, sending=sending, receiving=receiving) -> None:
                receiving.rx.close()  # a copy: while anybody has one, a receiver may still come
                words.say("runs")
                try:
                    while True:
                        sending.step()
                except mk.Closed:
                    words.say("told")

            def receive(words: Words, sending=sending, receiving=receiving) -> None:
                sending.tx.close()
                words.say("runs")
                try:
                    while True:
                        receiving.step()  # each message is compared: what comes is a prefix
                except mk.Closed:
                    words.say("told")

            with Child(send) as sender, Child(receive) as receiver:
                for end in (sending.tx, receiving.rx):
                    end.close()  # ours, never used
                sender.expect("runs")
                receiver.expect("runs")
                victim, other = chance.choice([(sender, receiver), (receiver, sender)])
                delay_until = time.monotonic() + chance.random() * 0.03
                while time.monotonic() < delay_until:
                    os.sched_yield()
                victim.signal(signal.SIGKILL)
                assert victim.wait() == -signal.SIGKILL
                other.expect("told")
                assert other.wait() == 0
