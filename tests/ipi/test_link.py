"""Links between two processes: messages with types, replies to whom they belong, IPIs counted and in order."""

from __future__ import annotations

import select

import pytest

import multikernel as mk
from multikernel.ipi.messages import REPLY, REQUEST
from tests.shm.children import LIMIT, Words

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
