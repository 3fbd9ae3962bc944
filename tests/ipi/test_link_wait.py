"""`mk.wait` for links."""

from __future__ import annotations

import signal
from contextlib import ExitStack

import pytest

import multikernel as mk
from tests.shm.children import LIMIT, Words

from .pair import echo, joined


def answer_with_ipi_first(link: mk.Link, words: Words) -> None:
    """At each word: an IPI, or a message, or the end."""
    while (word := words.hear()) != "end":
        if word == "ipi":
            link.ipi(3)
        else:
            link.send(word.encode())


@pytest.mark.parametrize("beside", [False, True], ids=["one", "with a ring"])
def test_a_link_has_something_when_it_has_a_message_and_its_interrupts_are_handled_meanwhile(beside):
    with ExitStack() as stack:
        link, child = stack.enter_context(joined(answer_with_ipi_first))
        objects: list[object] = [link]
        if beside:
            ring = stack.enter_context(mk.Ring(4096))
            objects.append(stack.enter_context(ring.receiver()))
        counts: list[int] = []
        link.on_ipi(3, lambda _, count: counts.append(count))
        for number in range(3):
            assert mk.wait(objects, timeout=0) == []
            child.say("ipi")
            while len(counts) <= number:
                assert mk.wait(objects, timeout=0.01) == []
            child.say("hello")
            for _ in range(2):
                assert mk.wait(objects, timeout=LIMIT) == [link]
            assert link.recv().payload == b"hello"
        assert counts == [1, 1, 1]
        child.say("end")
        assert mk.wait(objects, timeout=LIMIT) == [link]
        with pytest.raises(mk.Closed):
            link.recv()


def speak_first(link: mk.Link, words: Words) -> None:
    link.send(b"first")
    echo(link, words)


def test_a_message_that_came_while_a_reply_was_waited_for_is_something():
    with joined(speak_first) as (link, _), joined(echo) as (other, _):
        assert link.request(b"x", timeout=LIMIT).payload == b"x"
        assert mk.wait([other, link]) == [link]
        other.send(b"y")
        assert other.recv(timeout=LIMIT).payload == b"y"
        other.send(b"z")
        while mk.wait([other, link]) != [other, link]:
            pass
        assert link.recv().payload == b"first"
        assert mk.wait([other, link]) == [other]


def test_the_death_of_the_other_side_is_something():
    with joined(echo) as (link, child), joined(echo) as (other, _):
        assert mk.wait([link, other], timeout=0.01) == []
        child.signal(signal.SIGKILL)
        assert mk.wait([other, link], timeout=LIMIT) == [link]
        with pytest.raises(mk.Closed):
            link.recv()


def test_a_link_that_was_closed_here_raises_closed():
    with joined(echo) as (link, _), joined(echo) as (other, _):
        assert mk.wait([link, other], timeout=0.01) == []
        link.close()
        with pytest.raises(mk.Closed):
            mk.wait([link, other])
