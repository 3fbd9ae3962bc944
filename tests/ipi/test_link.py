"""Links between two processes: messages with types, replies to whom they belong, IPIs counted and in order."""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import socket
import threading
from dataclasses import dataclass, field

import pytest

import multikernel as mk
from multikernel.ipi import link as link_module
from multikernel.ipi.half import LinkHalf
from multikernel.ipi.messages import REPLY, REQUEST
from multikernel.shm.records import Counters
from tests.eventually import until
from tests.shm.children import LIMIT, Child, Words, open_descriptors, state

from .pair import THEIRS, echo, joined


def readable(link: mk.Link, timeout: float = 0) -> bool:
    return bool(select.select([link.fileno()], [], [], timeout)[0])


# --- messages


def test_a_message_arrives_with_its_type_its_number_and_its_sender():
    with joined(echo) as (link, _):
        link.send(b"one")
        link.send(b"two", type=mk.IO, subtype=7)
        one, two = link.recv(timeout=LIMIT), link.recv(timeout=LIMIT)
        assert (one.payload, one.type, one.subtype, one.sender, one.redelivered) == (b"one", mk.USER, 0, THEIRS, False)
        assert (two.payload, two.type, two.subtype) == (b"two", mk.IO, 7)
        assert one.id & REPLY
        assert not one.id & REQUEST
        assert two.id == one.id + 1


def test_the_whole_surface_of_a_rings_ends_is_there():
    with joined(echo) as (link, _):
        assert link.try_send(b"a", type=mk.NETWORK)
        assert link.send_many([b"b", b"c"], subtype=3) == 2
        assert link.try_send_many([b"d"]) == 1
        with link.reserve(1, type=mk.IO) as view:
            view[:] = b"e"
        received: list[mk.Message] = []
        while len(received) < 5:
            received += link.recv_many(10, timeout=LIMIT)
        assert [(m.payload, m.type, m.subtype) for m in received] == [
            (b"a", mk.NETWORK, 0),
            (b"b", mk.USER, 3),
            (b"c", mk.USER, 3),
            (b"d", mk.USER, 0),
            (b"e", mk.IO, 0),
        ]
        assert link.try_recv() is None
        assert link.try_recv_many(4) == []
        link.send(b"f")
        with link.peek(timeout=LIMIT) as view:
            assert bytes(view) == b"f"
        assert link.try_recv() is None
        for bad in (0, -1):
            with pytest.raises(ValueError, match="the least is 1"):
                link.recv_many(bad)
            with pytest.raises(ValueError, match="the least is 1"):
                link.try_recv_many(bad)
        with pytest.raises(ValueError, match="the least is 0"):
            link.reserve(-1)


@pytest.mark.parametrize(
    ("type_", "subtype", "why"),
    [
        (mk.SYSTEM, 0, "the host's alone"),
        (mk.RESOURCE, 1, "the host's alone"),
        (0x10000, 0, "16 bits"),
        (-1, 0, "16 bits"),
        (mk.USER, 0x10000, "16 bits"),
    ],
)
def test_a_type_that_is_not_ones_to_send_is_refused(type_, subtype, why):
    with joined(echo) as (link, _):
        message = mk.Message(mk.USER, 0, 1, THEIRS, False, b"", link)
        for send in (
            lambda **kind: link.send(b"x", **kind),
            lambda **kind: link.try_send(b"x", **kind),
            lambda **kind: link.send_many([b"x"], **kind),
            lambda **kind: link.reserve(1, **kind),
            lambda **kind: link.request(b"x", **kind),
            lambda **kind: message.reply(b"x", **kind),
        ):
            with pytest.raises(ValueError, match=why):
                send(type=type_, subtype=subtype)
        assert link.request(b"still fine", timeout=LIMIT).payload == b"still fine"


def test_what_no_link_can_carry_is_refused_and_nothing_is_sent():
    with joined(echo, capacity=4096) as (link, _):
        with pytest.raises(mk.MessageTooLarge):
            link.send(b"x" * 5000)
        with pytest.raises(mk.MessageTooLarge):
            link.request(b"x" * 5000)
        with pytest.raises(TypeError):
            link.send("text")
        assert link.request(b"ok", timeout=LIMIT).payload == b"ok"


def test_a_message_made_by_hand_has_nobody_to_reply_to():
    with pytest.raises(ValueError, match="nobody to reply to"):
        mk.Message(mk.USER, 0, 1, 5, False, b"").reply(b"x")


# --- requests


def test_a_request_gets_its_reply_and_other_messages_stay_for_recv():
    def serve(link: mk.Link, words: Words) -> None:
        for message in link:
            link.send(b"before " + message.payload)
            message.reply(b"reply " + message.payload)
            link.send(b"after " + message.payload)

    with joined(serve) as (link, _):
        assert link.request(b"1", timeout=LIMIT).payload == b"reply 1"
        assert link.request(b"2", timeout=LIMIT).payload == b"reply 2"
        others = [link.recv(timeout=LIMIT).payload for _ in range(4)]
        assert others == [b"before 1", b"after 1", b"before 2", b"after 2"]
        assert link.late_replies == 0


def test_replies_in_another_order_find_their_requests():
    """A reply to a plain send comes out of recv, one to a request only out of that request."""

    def serve(link: mk.Link, words: Words) -> None:
        plain, request = link.recv(timeout=LIMIT), link.recv(timeout=LIMIT)
        request.reply(b"to the request")
        plain.reply(b"to the send")
        link.recv()

    with joined(serve) as (link, _):
        link.send(b"plain")
        assert link.request(b"request", timeout=LIMIT).payload == b"to the request"
        assert link.recv(timeout=LIMIT).payload == b"to the send"
        link.send(b"end")


def test_a_reply_that_comes_too_late_is_dropped_and_counted():
    def serve(link: mk.Link, words: Words) -> None:
        requests = [link.recv(timeout=LIMIT) for _ in range(3)]
        words.hear()
        for request in requests:
            request.reply(b"late")
        link.send(b"after")
        for message in link:
            message.reply(b"in time")

    with joined(serve) as (link, child):
        for _ in range(3):
            with pytest.raises(mk.Timeout, match=r"child did not reply within 0\.01 s"):
                link.request(b"x", timeout=0.01)
        child.say("reply now")
        assert link.recv(timeout=LIMIT).payload == b"after"
        assert link.late_replies == 3
        assert link.request(b"x", timeout=LIMIT).payload == b"in time"
        assert link.late_replies == 3


@pytest.mark.parametrize("how", ["try_recv", "recv_many", "peek", "wait"])
def test_late_replies_come_out_of_nothing(how):
    def serve(link: mk.Link, words: Words) -> None:
        request = link.recv(timeout=LIMIT)
        words.hear()
        request.reply(b"late")
        link.send(b"after")
        words.say("sent")
        words.hear()

    with joined(serve) as (link, child):
        with pytest.raises(mk.Timeout):
            link.request(b"x", timeout=0)
        child.say("reply now")
        child.expect("sent")
        if how == "try_recv":
            message = link.try_recv()
            assert message is not None
            payload = message.payload
        elif how == "recv_many":
            (message,) = link.recv_many(5, timeout=LIMIT)
            payload = message.payload
        elif how == "peek":
            with link.peek(timeout=LIMIT) as view:
                payload = bytes(view)
        else:
            link.wait(timeout=LIMIT)
            payload = link.recv(timeout=0).payload
        assert payload == b"after"
        assert link.late_replies == 1
        child.say("end")


def test_a_request_made_by_a_handler_leaves_the_outer_one_its_reply():
    """Each reply goes to its own request, also when the inner one receives the outer one's."""

    def serve(link: mk.Link, words: Words) -> None:
        outer = link.recv(timeout=LIMIT)
        link.ipi(3)
        inner = link.recv(timeout=LIMIT)
        outer.reply(b"to " + outer.payload)
        inner.reply(b"to " + inner.payload)
        link.recv()

    with joined(serve) as (link, _):
        inner: list[object] = []
        link.on_ipi(3, lambda vector, count: inner.append(link.request(b"inner", timeout=LIMIT).payload))
        assert link.request(b"outer", timeout=LIMIT).payload == b"to outer"
        assert inner == [b"to inner"]
        assert link.late_replies == 0
        link.send(b"end")


def test_a_flood_of_other_messages_does_not_keep_a_request_beyond_its_time():
    def flood(link: mk.Link, words: Words) -> None:
        while True:
            link.send(b"x" * 100)

    with joined(flood) as (link, child):
        with pytest.raises(mk.Timeout, match="did not reply"):
            link.request(b"x", timeout=0.1)
        assert link.recv(timeout=LIMIT).payload == b"x" * 100
        child.kill()


# --- waiting and looking


def test_timeouts_name_the_peer():
    def serve(link: mk.Link, words: Words) -> None:
        words.hear()

    with joined(serve) as (link, child):
        for call in (
            lambda: link.recv(timeout=0.01),
            lambda: link.recv_many(3, timeout=0.01),
            lambda: link.wait(timeout=0.01),
            lambda: link.peek(timeout=0.01).__enter__(),
        ):
            with pytest.raises(mk.Timeout, match=r"nothing came from child within 0\.01 s"):
                call()
        with pytest.raises(mk.Timeout, match=r"child \(id 5\) made no room within 0\.01 s"):  # noqa: PT012
            for _ in range(100):
                link.send(b"x" * 10_000, timeout=0.01)
        child.say("end")


def test_wait_takes_nothing():
    with joined(echo) as (link, _):
        link.send(b"x")
        for _ in range(3):
            link.wait(timeout=LIMIT)
        assert link.recv(timeout=0).payload == b"x"


def test_a_peek_that_ends_badly_takes_nothing():
    """Neither from the ring, nor from what a request has put aside."""

    def serve(link: mk.Link, words: Words) -> None:
        link.send(b"aside")
        for message in link:
            message.reply(message.payload)

    with joined(serve) as (link, _):
        assert link.request(b"x", timeout=LIMIT).payload == b"x"
        link.send(b"in the ring")
        for expected in (b"aside", b"in the ring"):
            for _ in range(2):
                with pytest.raises(KeyError), link.peek(timeout=LIMIT) as view:  # noqa: PT012
                    assert view == expected
                    raise KeyError
            with link.peek(timeout=LIMIT) as view:
                assert view == expected
                assert view.readonly
        assert link.try_recv() is None


def test_a_links_descriptor_is_readable_exactly_while_something_is_unread():
    """Also when the sending end reads the socket that both share."""
    with joined(echo, capacity=4096) as (link, _):
        assert not readable(link)
        for number in range(300):
            payload = b"%d" % number * (number % 100)
            link.send(payload)
            if number % 3 == 0:
                link.send(b"second")
            assert readable(link, LIMIT)
            while (message := link.try_recv()) is None:
                assert readable(link, LIMIT)
            assert message.payload == payload
            if number % 3 == 0:
                assert readable(link, LIMIT)
                assert link.recv(timeout=LIMIT).payload == b"second"
            assert not readable(link)


def test_a_send_that_waits_does_not_make_an_unread_message_unreadable():
    """It reads the socket that both ends share, and with it the bell that was for the receiver."""

    def serve(link: mk.Link, words: Words) -> None:
        for _ in range(20):
            words.expect("send")
            link.send(b"x")
        words.hear()

    with joined(serve, capacity=4096) as (link, child):
        while link.try_send(b"y" * 100):
            pass
        for _ in range(20):
            assert not readable(link)
            child.say("send")
            assert readable(link, LIMIT)
            with pytest.raises(mk.Timeout):
                link.send(b"y" * 100, timeout=0.005)
            assert readable(link)
            assert link.recv(timeout=0).payload == b"x"
        child.say("end")


def test_a_descriptor_is_readable_for_an_ipi():
    def serve(link: mk.Link, words: Words) -> None:
        words.hear()
        link.ipi(9)
        words.hear()

    with joined(serve) as (link, child):
        taken: list[tuple[int, int]] = []
        link.on_ipi(9, lambda vector, count: taken.append((vector, count)))
        assert not readable(link)
        child.say("ring")
        assert readable(link, LIMIT)
        assert link.try_recv() is None
        assert taken == [(9, 1)]
        assert not readable(link)
        child.say("end")


# --- IPIs


@dataclass
class Tally:
    """Counts what handlers were told."""

    counts: dict[int, int] = field(default_factory=dict)
    calls: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, vector: int, count: int) -> None:
        self.calls.append((vector, count))
        self.counts[vector] = self.counts.get(vector, 0) + count

    def on(self, link: mk.Link, vectors: range = range(64)) -> Tally:
        for vector in vectors:
            link.on_ipi(vector, self)
        return self


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


# --- the end


def test_what_was_sent_is_received_before_closed():
    def serve(link: mk.Link, words: Words) -> None:
        link.ipi(1)
        link.send_many([b"1", b"2"])

    with joined(serve) as (link, child):
        tally = Tally().on(link)
        assert child.wait() == 0
        assert [message.payload for message in link.recv_many(9, timeout=LIMIT)] == [b"1", b"2"]
        assert tally.calls == [(1, 1)]
        for call in (link.recv, link.try_recv, lambda: link.send(b"x"), lambda: link.ipi(1), lambda: link.request(b"")):
            with pytest.raises(mk.Closed, match=rf"child \(id 5\) \(pid {child.pid}\)"):
                call()
        assert list(link) == []
        assert link.closed
        assert not link.closed_here


@pytest.mark.parametrize("waiting", ["recv", "request", "send", "peek", "wait"])
def test_the_death_of_the_peer_ends_every_wait(waiting):
    def serve(link: mk.Link, words: Words) -> None:
        words.say("here")
        words.hear()

    with joined(serve) as (link, child):
        child.expect("here")
        calls = {
            "recv": link.recv,
            "request": lambda: link.request(b"x"),
            "send": lambda: [link.send(b"x" * 10_000) for _ in range(100)],
            "peek": lambda: link.peek().__enter__(),
            "wait": lambda: (link.wait(), link.recv()),
        }
        errors: list[BaseException] = []

        def call() -> None:
            try:
                calls[waiting]()
            except mk.Closed as error:
                errors.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        until(lambda: thread.native_id and state(os.getpid(), thread.native_id) == "S")
        child.kill()
        thread.join(LIMIT)
        assert not thread.is_alive()
        assert len(errors) == 1
        assert f"pid {child.pid}" in str(errors[0])


def test_once_a_killed_peer_is_known_to_be_gone_nothing_is_sent_to_it():
    def serve(link: mk.Link, words: Words) -> None:
        words.say("here")
        words.hear()

    with joined(serve) as (link, child):
        child.expect("here")
        child.kill()
        with pytest.raises(mk.Closed):
            link.recv(timeout=LIMIT)
        for call in (
            lambda: link.send(b"x"),
            lambda: link.try_send(b"x"),
            lambda: link.send_many([b"x"]),
            lambda: link.reserve(1).__enter__(),
            lambda: link.ipi(1),
        ):
            with pytest.raises(mk.Closed, match=f"pid {child.pid}"):
                call()


def test_a_stopped_peer_is_a_timeout():
    with joined(echo) as (link, child):
        assert link.request(b"x", timeout=LIMIT).payload == b"x"
        child.stop()
        with pytest.raises(mk.Timeout):
            link.request(b"y", timeout=0.1)
        assert not link.closed
        child.signal(signal.SIGCONT)
        assert link.request(b"z", timeout=LIMIT).payload == b"z"
        assert link.late_replies == 1


def test_a_closed_link_says_so_and_may_be_closed_again():
    with joined(echo) as (link, child):
        link.close()
        link.close()
        assert link.closed
        assert link.closed_here
        for call in (link.recv, link.try_recv, lambda: link.send(b"x"), lambda: link.ipi(0), link.fileno, link.wait):
            with pytest.raises(mk.Closed, match="was closed here"):
                call()
        assert "closed" in repr(link)
        assert child.wait() == 0


def test_a_link_in_use_is_not_half_closed():
    with joined(echo) as (link, _):
        with link.reserve(1) as view:
            with pytest.raises(mk.NotOwner):
                link.close()
            view[:] = b"x"
        assert link.recv(timeout=LIMIT).payload == b"x"
        link.send(b"y")
        with link.peek(timeout=LIMIT), pytest.raises(mk.NotOwner):
            link.close()
        assert link.request(b"z", timeout=LIMIT).payload == b"z"


def test_a_link_that_is_forgotten_warns_and_closes():
    before = open_descriptors()
    half, other = LinkHalf.create(4096, 1, 1), LinkHalf.create(4096, 2, 1)
    bells = socket.socketpair()
    link = half.attach(
        [os.dup(fd) for fd in other.descriptors()],
        socket_fd=bells[0].detach(),
        pidfd=os.pidfd_open(os.getpid()),
        peer_id=2,
        peer_name="other",
    )
    with pytest.warns(ResourceWarning, match="unclosed <Link to other"):
        del link
    assert bells[1].recv(1) in (b"", b"\1")  # the last ring, or the end
    bells[1].close()
    other.close()
    assert open_descriptors() == before


def test_a_forked_copy_of_a_link_raises_and_harms_nothing():
    with joined(echo) as (link, _):
        link.fileno()
        assert link.request(b"x", timeout=LIMIT).payload == b"x"

        def use(words: Words) -> None:
            for call in (
                lambda: link.send(b"stray"),
                lambda: link.ipi(1),
                link.recv,
                link.try_recv,
                link.wait,
                link.fileno,
                lambda: link.counters,
                lambda: link.request(b"stray"),
                lambda: link.peek().__enter__(),
                lambda: link.reserve(1).__enter__(),
            ):
                with pytest.raises(mk.NotOwner, match="forked from"):
                    call()
            link.close()

        with Child(use) as child:
            assert child.wait() == 0
        assert link.request(b"y", timeout=LIMIT).payload == b"y"


def test_counters_say_what_went_through():
    with joined(echo) as (link, _):
        link.send_many([b"12345", b"678"])
        while link.counters.received < 2:
            link.recv(timeout=LIMIT)
        link.ipi(1)
        counters = link.counters
        assert isinstance(counters, Counters)
        assert (counters.sent, counters.sent_bytes) == (2, 8)
        assert (counters.received, counters.received_bytes) == (2, 8)
        assert (counters.ipis_sent, counters.ipis_received) == (1, 0)


# --- what the host says of a dead peer


@dataclass
class Record:
    state: str = "active"
    epoch: int = 1
    name: str = "child"
    due: bool = False


class Machine:
    """Where a host says what has become of an instance: after some looks, or never."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def instance(self, _: int) -> Record:
        self.looks -= 1
        return Record(state="failed" if self.looks < 0 else "active")


def test_closed_is_raised_after_the_host_has_said_what_became_of_the_peer():
    machine = Machine(looks=10)
    with joined(echo, machine=machine) as (link, child):
        assert link.request(b"x", timeout=LIMIT).payload == b"x"
        assert machine.looks == 10  # nobody asks while it lives
        child.kill()
        with pytest.raises(mk.Closed):
            link.recv(timeout=LIMIT)
        assert machine.looks == -1


def test_a_silent_host_holds_closed_back_for_a_second_at_most():
    machine = Machine(looks=1 << 60)
    with joined(echo, machine=machine) as (link, child):
        child.kill()
        with pytest.raises(mk.Closed):
            link.request(b"x", timeout=LIMIT)
        assert link_module.HOST_SPEAKS_WITHIN <= 1.0


# --- halves


def test_a_half_that_is_not_joined_leaves_nothing():
    before = open_descriptors()
    half = LinkHalf.create(4096, 1, 1)
    assert len(half.descriptors()) == 2
    half.close()
    half.close()
    assert open_descriptors() == before
    with pytest.raises(ValueError, match="power of two"):
        LinkHalf.create(5000, 1, 1)
    assert open_descriptors() == before


def test_what_a_half_hands_out_is_read_only():
    half = LinkHalf.create(4096, 1, 1)
    for fd in half.descriptors():
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        with pytest.raises(PermissionError):
            os.pwrite(again, b"stray", 0)
        os.close(again)
    half.close()


@pytest.mark.parametrize("wrong", ["swapped", "unsealed", "capacity", "one", "closed"])
def test_objects_that_are_not_what_they_must_be_close_the_half_and_all_descriptors(wrong):
    before = open_descriptors()
    half = LinkHalf.create(4096, 1, 1)
    other = LinkHalf.create(8192 if wrong == "capacity" else 4096, 2, 1)
    fds = [os.dup(fd) for fd in other.descriptors()]
    error: type[Exception] = mk.CorruptLane
    if wrong == "swapped":
        fds.reverse()
    elif wrong == "unsealed":
        os.close(fds[1])
        fds[1] = os.memfd_create("lane:by hand")
        os.ftruncate(fds[1], 4096)
    elif wrong == "one":
        os.close(fds.pop())
        error = ValueError
    elif wrong == "closed":
        half.close()
        error = ValueError
    bells = socket.socketpair()
    with pytest.raises(error):
        half.attach(fds, socket_fd=bells[0].detach(), pidfd=os.pidfd_open(os.getpid()), peer_id=2, peer_name="other")
    bells[1].close()
    other.close()
    assert open_descriptors() == before


def test_descriptors_that_run_out_leave_nothing():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_descriptors()
    refused = joined_at_last = 0
    for limit in range(3, 100):
        other = LinkHalf.create(4096, 2, 1)
        fds = [os.dup(fd) for fd in other.descriptors()]
        bells = socket.socketpair()
        pidfd = os.pidfd_open(os.getpid())
        link = None
        half = None
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            half = LinkHalf.create(4096, 1, 1)
            link = half.attach(fds, socket_fd=bells[0].detach(), pidfd=pidfd, peer_id=2, peer_name="other")
        except OSError:
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if half is None:
            for fd in (*fds, pidfd):
                os.close(fd)
        if link is not None:
            joined_at_last += 1
            link.close()
        for bell in bells:
            bell.close()
        other.close()
        assert open_descriptors() == before
        if joined_at_last:
            break
    assert refused > 5
    assert joined_at_last
