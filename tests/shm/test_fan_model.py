"""Any sequence of calls on a mailbox or a broadcast, against a model of a few lines."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, precondition, rule

import multikernel as mk

from .test_model import CAPACITY, record_size

payloads = st.one_of(st.binary(max_size=40), st.builds(bytes, st.integers(0, CAPACITY // 2 - 16)))


class MailboxModel(RuleBasedStateMachine):
    """A queue for each sender. Whose turn it is, is the receiver's choice; the order of one's messages is not."""

    senders = Bundle("senders")

    @initialize()
    def begin(self) -> None:
        self.box = mk.Mailbox(CAPACITY)
        self.rx = self.box.receiver()
        self.made: list[mk.MailboxSender] = []
        self.there: dict[int, deque[bytes]] = {}  # of the senders that are open, or have left something
        self.open: set[int] = set()
        self.closed = False

    def teardown(self) -> None:
        if hasattr(self, "box"):
            for each in (self.box, self.rx, *self.made):
                each.close()

    @precondition(lambda self: not self.closed)
    @rule(target=senders)
    def join(self) -> mk.MailboxSender:
        tx = self.box.sender()
        assert tx.number == len(self.made)
        self.made.append(tx)
        self.open.add(tx.number)
        self.there[tx.number] = deque()
        return tx

    @rule(tx=senders, batch=st.lists(payloads, max_size=8))
    def send(self, tx: mk.MailboxSender, batch: list[bytes]) -> None:
        there = self.there[tx.number]
        batch = [bytes([tx.number]) + payload for payload in batch]
        expected = 0
        for payload in batch:
            if record_size(payload) > CAPACITY - sum(map(record_size, there)):
                break
            there.append(payload)
            expected += 1
        assert tx.try_send_many(batch) == expected

    @rule(tx=consumes(senders))
    def leave(self, tx: mk.MailboxSender) -> None:
        tx.close()
        self.open.discard(tx.number)

    @rule(limit=st.integers(1, 100))
    def receive(self, limit: int) -> None:
        left = sum(map(len, self.there.values()))
        known = sum(len(self.there[number]) for number in self.rx.senders)
        try:
            found = self.rx.try_recv_many_from(limit)
        except mk.Closed:
            assert self.closed
            assert not self.open
            assert not left
            return
        assert min(limit, known) <= len(found) <= min(limit, left)
        assert found or not left
        assert found or not (self.closed and not self.open and not left)
        for sender, payload in found:
            assert payload == self.there[sender].popleft()

    @rule()
    def receive_one(self) -> None:
        if any(self.there.values()):
            sender, payload = self.rx.recv_from(timeout=0)
            assert payload == self.there[sender].popleft()

    @rule(limit=st.integers(1, 100), taken=st.booleans())
    def peek(self, limit: int, taken: bool) -> None:
        if not any(self.there.values()):
            return
        try:
            with self.rx.peek_many(limit, timeout=0) as views:
                assert 1 <= len(views) <= limit
                there = self.there[views[0][0]]
                assert list(map(bytes, views)) == list(there)[: len(views)]
                if not taken:
                    raise LookupError
                for _ in views:
                    there.popleft()
        except LookupError:
            pass

    @rule()
    def count(self) -> None:
        left = sum(map(len, self.there.values()))
        assert len(self.rx) == left
        assert self.rx
        assert self.rx.closed is (self.closed and not self.open)

    @precondition(lambda self: not self.closed)
    @rule()
    def close(self) -> None:
        self.box.close()
        self.closed = True
        with pytest.raises(mk.Closed):
            self.box.sender()


class BroadcastModel(RuleBasedStateMachine):
    """One list of all that was sent; each receiver has a place in it."""

    slow = "wait"
    receivers = Bundle("receivers")

    @initialize()
    def begin(self) -> None:
        self.cast = mk.Broadcast(CAPACITY, slow=self.slow)
        self.tx = self.cast.sender()
        self.sent: list[bytes] = []
        self.made: list[Any] = []
        self.places: dict[Any, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "cast"):
            for each in (self.tx, self.cast, *self.made):
                each.close()

    @rule(target=receivers)
    def join(self) -> Any:
        rx = self.cast.receiver()
        self.made.append(rx)
        self.places[rx] = len(self.sent)
        return rx

    @rule(rx=consumes(receivers))
    def leave(self, rx: Any) -> None:
        rx.close()
        del self.places[rx]

    def room(self) -> int:
        """For the next message: the slowest receiver stands in the way."""
        behind = min(self.places.values(), default=len(self.sent))
        return CAPACITY - sum(map(record_size, self.sent[behind:]))

    def fits(self, payload: bytes) -> bool:
        return record_size(payload) <= self.room()

    @rule(batch=st.lists(payloads, max_size=8))
    def send_many(self, batch: list[bytes]) -> None:
        expected = 0
        for payload in batch:
            if not self.fits(payload):
                break
            self.sent.append(payload)
            expected += 1
        assert self.tx.try_send_many(batch) == expected

    @rule(payload=payloads)
    def send(self, payload: bytes) -> None:
        if self.fits(payload):
            self.tx.send(payload, timeout=0)
            self.sent.append(payload)
        else:
            assert not self.tx.try_send(payload)

    @rule(rx=receivers, limit=st.integers(1, 20))
    def receive(self, rx: Any, limit: int) -> None:
        place = self.places[rx]
        found = rx.try_recv_many(limit)
        assert found == self.sent[place : place + limit]
        self.places[rx] += len(found)

    @rule(rx=receivers, limit=st.integers(1, 20), taken=st.booleans())
    def peek(self, rx: Any, limit: int, taken: bool) -> None:
        place = self.places[rx]
        if place == len(self.sent):
            return
        try:
            with rx.peek_many(limit, timeout=0) as views:
                assert list(map(bytes, views)) == self.sent[place : place + limit]
                if not taken:
                    raise LookupError
                self.places[rx] += len(views)
        except LookupError:
            pass

    @rule(rx=receivers)
    def receive_into(self, rx: Any) -> None:
        if self.places[rx] == len(self.sent):
            return
        expected = self.sent[self.places[rx]]
        room = bytearray(CAPACITY)
        assert rx.recv_into(room, timeout=0) == len(expected)
        assert room.startswith(expected)
        self.places[rx] += 1

    @rule(rx=receivers)
    def wait(self, rx: Any) -> None:
        assert len(rx) == len(self.sent) - self.places[rx]
        assert not rx.closed

    @rule()
    def count(self) -> None:
        assert self.tx.receivers == len(self.places)


class MissingModel(BroadcastModel):
    """As before, but there is always room, and whoever was overtaken goes on with the oldest that is left."""

    slow = "miss"

    def room(self) -> int:
        return CAPACITY

    def oldest(self) -> int:
        """The number of the oldest message that is whole: as many are as fit with the last one."""
        room = CAPACITY
        number = len(self.sent)
        while number and record_size(self.sent[number - 1]) <= room:
            number -= 1
            room -= record_size(self.sent[number])
        return number

    @rule(rx=BroadcastModel.receivers, limit=st.integers(1, 20))
    def receive(self, rx: Any, limit: int) -> None:
        place, missed = self.places[rx], rx.missed
        found = rx.try_recv_many(limit)
        place += rx.missed - missed
        assert found == self.sent[place : place + len(found)]
        self.places[rx] = place + len(found)
        assert bool(found) is (place < len(self.sent))
        # It copies ahead, so it may have seen what is gone by now; it misses nothing that is still there.
        assert rx.missed == missed or place <= self.oldest()

    @rule(rx=BroadcastModel.receivers, limit=st.integers(1, 20), taken=st.booleans())
    def peek(self, rx: Any, limit: int, taken: bool) -> None:
        place, missed = self.places[rx], rx.missed
        if place == len(self.sent):
            return
        try:
            with rx.peek_many(limit, timeout=0) as views:
                shown = list(map(bytes, views))
                if not taken:
                    raise LookupError
        except LookupError:
            assert rx.missed == missed
            return
        place += rx.missed - missed
        assert shown == self.sent[place : place + len(shown)]
        self.places[rx] = place + len(shown)

    @rule(rx=BroadcastModel.receivers)
    def receive_into(self, rx: Any) -> None:
        place, missed = self.places[rx], rx.missed
        if place == len(self.sent):
            return
        room = bytearray(CAPACITY)
        length = rx.recv_into(room, timeout=0)
        place += rx.missed - missed
        assert room[:length] == self.sent[place]
        self.places[rx] = place + 1

    @rule(rx=BroadcastModel.receivers)
    def wait(self, rx: Any) -> None:
        """It waits for all that is there, and for what it has copied ahead."""
        place = self.places[rx]
        assert len(self.sent) - max(place, self.oldest()) <= len(rx) <= len(self.sent) - place
        assert not rx.closed


TestMailbox = MailboxModel.TestCase
TestBroadcast = BroadcastModel.TestCase
TestMissing = MissingModel.TestCase
TestMailbox.settings = TestBroadcast.settings = TestMissing.settings = settings(max_examples=60, stateful_step_count=60)
