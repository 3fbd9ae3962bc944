"""IPIs of a link: counted, coalesced, masked, in their order, and what a handler may do."""

from __future__ import annotations

import random
import select

import pytest

import multikernel as mk
from tests.shm.children import LIMIT, Words

from .pair import Tally, echo, joined


def readable(link: mk.Link, timeout: float = 0) -> bool:
    return bool(select.select([link.fileno()], [], [], timeout)[0])


def test_ipis_coalesce_and_none_is_lost():
    """Raised twice before anybody looks: the handler runs once and is told two."""

    def serve(link: mk.Link, words: Words) -> None:
        for vector in (5, 63, 5, 0):
            link.ipi(vector)
        link.send(b"done")
        words.say("raised")
        words.hear()

    with joined(serve) as (link, child):
        tally = Tally().on(link)
        child.expect("raised")
        assert link.recv(timeout=LIMIT).payload == b"done"
        assert tally.calls == [(0, 1), (5, 2), (63, 1)]
        child.say("end")


def test_ten_thousand_ipis_on_random_vectors_are_counted_exactly():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    expected = [0] * 64
    chance = random.Random(seed)
    for _ in range(10_000):
        expected[chance.randrange(64)] += 1

    def serve(link: mk.Link, words: Words) -> None:
        chance = random.Random(seed)
        for _ in range(10_000):
            link.ipi(chance.randrange(64))
        link.send(b"done")
        words.hear()

    with joined(serve) as (link, child):
        tally = Tally().on(link)
        assert link.recv(timeout=LIMIT).payload == b"done"
        assert [tally.counts.get(vector, 0) for vector in range(64)] == expected
        assert link.counters.ipis_received == 10_000
        child.say("end")


def test_an_ipi_is_handled_before_a_message_that_was_sent_after_it():
    """For each of a thousand messages: all IPIs before it, whatever waits and wake-ups there are between."""

    def serve(link: mk.Link, words: Words) -> None:
        for number in range(1000):
            for _ in range(number % 3):
                link.ipi(number % 7)
            link.send(b"%d" % number)
            if number % 50 == 0:
                words.expect("go on")

    with joined(serve) as (link, child):
        tally = Tally().on(link)
        raised = 0
        for number in range(1000):
            raised += number % 3
            assert link.recv(timeout=LIMIT).payload == b"%d" % number
            assert sum(tally.counts.values()) >= raised
            if number % 50 == 0:
                assert sum(tally.counts.values()) == raised
                child.say("go on")


def test_a_batch_ends_where_an_ipi_was_raised():
    def serve(link: mk.Link, words: Words) -> None:
        link.send_many([b"1", b"2"])
        link.ipi(4)
        link.send_many([b"3", b"4"])
        words.say("sent")
        words.hear()

    with joined(serve) as (link, child):
        child.expect("sent")
        seen: list[str] = []
        link.on_ipi(4, lambda vector, count: seen.append("ipi"))
        seen += [message.payload.decode() for message in link.recv_many(10, timeout=LIMIT)]  # type: ignore[union-attr]
        assert seen == ["ipi", "1", "2", "3", "4"]  # it was there before we looked
        child.say("end")


def test_a_masked_vector_is_held_back_and_counted_and_wakes_nobody():
    def serve(link: mk.Link, words: Words) -> None:
        for _ in range(3):
            link.ipi(1)
            link.ipi(2)
        link.send(b"done")
        for message in link:
            message.reply(b"")

    with joined(serve) as (link, _):
        tally = Tally().on(link)
        link.mask(1)
        assert link.recv(timeout=LIMIT).payload == b"done"
        assert tally.counts == {2: 3}
        with pytest.raises(mk.Timeout):
            link.recv(timeout=0.01)
        assert not readable(link)
        link.unmask(1)
        assert readable(link)
        link.request(b"", timeout=LIMIT)
        assert tally.counts == {1: 3, 2: 3}


@pytest.mark.parametrize("vector", [-1, 64, 1 << 40])
def test_a_vector_that_does_not_exist_is_refused(vector):
    with joined(echo) as (link, _):
        for call in (link.ipi, link.mask, link.unmask, lambda vector: link.on_ipi(vector, print)):
            with pytest.raises(ValueError, match="there are 0 to 63"):
                call(vector)


def test_an_exception_in_a_handler_comes_out_of_the_call_and_loses_no_message():
    def serve(link: mk.Link, words: Words) -> None:
        link.ipi(1)
        link.ipi(2)
        link.send(b"done")
        words.hear()

    with joined(serve) as (link, child):
        tally = Tally().on(link, range(2, 3))

        def fail(vector: int, count: int) -> None:
            raise KeyError(vector)

        link.on_ipi(1, fail)
        with pytest.raises(KeyError):
            link.recv(timeout=LIMIT)
        assert tally.calls == []
        assert link.recv(timeout=LIMIT).payload == b"done"
        assert tally.calls == [(2, 1)]
        child.say("end")


def test_what_a_batch_had_taken_before_a_handler_raised_is_next():
    """recv_many with an IPI in the middle: its handler raises, and nothing that was there is lost."""

    def serve(link: mk.Link, words: Words) -> None:
        link.send_many([b"1", b"2"])
        words.hear()
        link.ipi(1)
        link.send(b"3")
        words.say("sent")
        words.hear()

    with joined(serve) as (link, child):
        seen: list[int] = []

        def fail(vector: int, count: int) -> None:
            seen.append(count)
            raise KeyError(vector)

        link.on_ipi(1, fail)
        assert link.recv(timeout=LIMIT).payload == b"1"
        child.say("on")
        child.expect("sent")
        with pytest.raises(KeyError):
            link.recv_many(5, timeout=LIMIT)
        assert [message.payload for message in link.recv_many(5, timeout=LIMIT)] == [b"2", b"3"]
        assert seen == [1]
        child.say("end")


def test_a_storm_of_ipis_ends_neither_messages_nor_deadlines():
    def storm(link: mk.Link, words: Words) -> None:
        link.ipi(0)
        link.send(b"hello")
        while True:
            for vector in range(64):
                link.ipi(vector)

    with joined(storm) as (link, child):
        Tally().on(link)
        assert link.recv(timeout=LIMIT).payload == b"hello"
        with pytest.raises(mk.Timeout):
            link.recv(timeout=0.05)
        with pytest.raises(mk.Timeout):
            link.wait(timeout=0.05)
        with pytest.raises(mk.Timeout):
            link.request(b"x", timeout=0.05)
        assert link.try_recv() is None
        child.kill()
