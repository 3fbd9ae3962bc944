"""A ring does what a bounded deque does, whatever is asked of it and in whatever order."""

from __future__ import annotations

from collections import deque

import numpy as np  # noqa: TID253
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import multikernel as mk

CAPACITY = 4096


def record_size(payload: bytes) -> int:
    """Header and padding included."""
    return (16 + len(payload) + 7) & ~7


payloads = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda n, byte: bytes([byte]) * n, st.integers(0, CAPACITY - 16), st.integers(0, 255)),
)


class Stop(Exception):
    """Ends a block badly."""


class Records(RuleBasedStateMachine):
    """Bytes, against a deque and a count of free bytes."""

    @initialize()
    def begin(self) -> None:
        self.ring = mk.Ring(CAPACITY)
        self.tx, self.rx = self.ring.sender(), self.ring.receiver()
        self.there: deque[bytes] = deque()
        self.sender_closed = False

    def teardown(self) -> None:
        if hasattr(self, "ring"):
            self.ring.close()

    @property
    def free(self) -> int:
        return CAPACITY - sum(map(record_size, self.there))

    @precondition(lambda self: not self.sender_closed)
    @rule(payload=payloads)
    def try_send(self, payload: bytes) -> None:
        fits = record_size(payload) <= self.free
        assert self.tx.try_send(payload) is fits
        if fits:
            self.there.append(payload)

    @precondition(lambda self: not self.sender_closed)
    @rule(payload=payloads)
    def send(self, payload: bytes) -> None:
        if record_size(payload) <= self.free:
            self.tx.send(bytearray(payload))
            self.there.append(payload)
        else:
            with pytest.raises(mk.Timeout):
                self.tx.send(payload, timeout=0)

    @precondition(lambda self: not self.sender_closed)
    @rule(batch=st.lists(payloads, max_size=8))
    def try_send_many(self, batch: list[bytes]) -> None:
        expected = 0
        for payload in batch:
            if record_size(payload) > self.free:
                break
            self.there.append(payload)
            expected += 1
        assert self.tx.try_send_many(batch) == expected

    @precondition(lambda self: not self.sender_closed)
    @rule(payload=payloads, well=st.booleans())
    def reserve(self, payload: bytes, well: bool) -> None:
        if record_size(payload) > self.free:
            with pytest.raises(mk.Timeout), self.tx.reserve(len(payload), timeout=0):
                pass
            return
        try:
            with self.tx.reserve(len(payload)) as view:
                view[:] = payload
                if not well:
                    raise Stop
        except Stop:
            return
        self.there.append(payload)

    @precondition(lambda self: not self.sender_closed)
    @rule(length=st.integers(CAPACITY - 15, 1 << 70))
    def too_large(self, length: int) -> None:
        with pytest.raises(mk.MessageTooLarge), self.tx.reserve(length, timeout=0):
            pass

    @rule()
    def try_recv(self) -> None:
        if self.there:
            assert self.rx.try_recv() == self.there.popleft()
        elif self.sender_closed:
            with pytest.raises(mk.Closed):
                self.rx.try_recv()
        else:
            assert self.rx.try_recv() is None

    @rule(limit=st.integers(1, 12))
    def try_recv_many(self, limit: int) -> None:
        expected = [self.there.popleft() for _ in range(min(limit, len(self.there)))]
        if self.sender_closed and not expected:
            with pytest.raises(mk.Closed):
                self.rx.try_recv_many(limit)
        else:
            assert self.rx.try_recv_many(limit) == expected

    @precondition(lambda self: self.there)
    @rule(well=st.booleans())
    def peek(self, well: bool) -> None:
        try:
            with self.rx.peek(timeout=0) as view:
                assert view == self.there[0]
                if not well:
                    raise Stop
        except Stop:
            return
        self.there.popleft()

    @precondition(lambda self: self.there)
    @rule(room=st.integers(0, 60))
    def recv_into(self, room: int) -> None:
        buffer = bytearray(room)
        if room < len(self.there[0]):
            with pytest.raises(ValueError, match="it stays"):
                self.rx.recv_into(buffer, timeout=0)
        else:
            expected = self.there.popleft()
            assert self.rx.recv_into(buffer, timeout=0) == len(expected)
            assert buffer[: len(expected)] == expected

    @precondition(lambda self: not self.sender_closed)
    @rule()
    def close(self) -> None:
        self.tx.close()
        self.sender_closed = True

    @invariant()
    def room_agrees(self) -> None:
        if hasattr(self, "tx") and not self.sender_closed:
            assert self.tx.free == self.free


class Elements(RuleBasedStateMachine):
    """Arrays of an odd size, against a deque of numbers."""

    SHAPE = (3,)
    SIZE = 12
    MOST = CAPACITY // SIZE

    @initialize()
    def begin(self) -> None:
        self.ring = mk.Ring(CAPACITY, dtype="i4", shape=self.SHAPE)
        self.tx, self.rx = self.ring.sender(), self.ring.receiver()
        self.there: deque[int] = deque()
        self.next = 0

    def teardown(self) -> None:
        if hasattr(self, "ring"):
            self.ring.close()

    def make(self, count: int) -> np.ndarray:
        numbers = np.arange(self.next, self.next + count, dtype="i4")
        return np.ascontiguousarray(np.broadcast_to(numbers[:, None], (count, *self.SHAPE)))

    def sent(self, count: int) -> None:
        self.there.extend(range(self.next, self.next + count))
        self.next += count

    def took(self, array: np.ndarray, limit: int) -> None:
        expected = [self.there.popleft() for _ in range(min(limit, len(self.there)))]
        assert array.shape == (len(expected), *self.SHAPE)
        assert (array == np.array(expected, dtype="i4").reshape(-1, 1)).all()

    @rule(count=st.integers(0, MOST + 5))
    def try_send_many(self, count: int) -> None:
        expected = min(count, self.MOST - len(self.there))
        assert self.tx.try_send_many(self.make(count)) == expected
        self.sent(expected)

    @rule()
    def try_send(self) -> None:
        fits = len(self.there) < self.MOST
        assert self.tx.try_send(self.make(1)[0]) is fits
        self.sent(int(fits))

    @rule(count=st.integers(1, MOST), well=st.booleans())
    def reserve(self, count: int, well: bool) -> None:
        if count > self.MOST - len(self.there):
            with pytest.raises(mk.Timeout), self.tx.reserve(count, timeout=0):
                pass
            return
        try:
            with self.tx.reserve(count) as view:
                view[:] = self.make(count).tobytes()
                if not well:
                    raise Stop
        except Stop:
            return
        self.sent(count)

    @rule(limit=st.integers(1, MOST + 5))
    def try_recv_many(self, limit: int) -> None:
        self.took(self.rx.try_recv_many(limit), limit)

    @rule()
    def try_recv(self) -> None:
        array = self.rx.try_recv()
        if array is None:
            assert not self.there
        else:
            self.took(array[None], 1)

    @precondition(lambda self: self.there)
    @rule(limit=st.integers(1, MOST), well=st.booleans())
    def peek(self, limit: int, well: bool) -> None:
        try:
            with self.rx.peek(timeout=0, limit=limit) as view:
                array = np.frombuffer(bytes(view), "i4").reshape(-1, *self.SHAPE)
                if not well:
                    assert array[0, 0] == self.there[0]
                    raise Stop
        except Stop:
            return
        self.took(array, limit)

    @precondition(lambda self: self.there)
    @rule(room=st.integers(1, MOST))
    def recv_into(self, room: int) -> None:
        array = np.zeros((room, *self.SHAPE), "i4")
        self.took(array[: self.rx.recv_into(array, timeout=0)], room)


TestRecords = Records.TestCase
TestElements = Elements.TestCase
TestRecords.settings = TestElements.settings = settings(max_examples=150, stateful_step_count=60)
