"""Who waits costs nothing: no context switch and no cpu time, for as long as nothing comes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack

import pytest

import multikernel as mk

from .children import LIMIT, Child, Words
from .idle import check_idle


def receive(rxs: list[mk.Receiver]) -> object:
    return rxs[0].recv()


def receive_in_time(rxs: list[mk.Receiver]) -> object:
    return rxs[0].recv(timeout=1000)


def wait_for_all(rxs: list[mk.Receiver]) -> object:
    return mk.wait(rxs)


def wait_beside_a_descriptor(rxs: list[mk.Receiver]) -> object:
    pipe = os.pipe()
    return mk.wait([*rxs, pipe[0]])


def receive_in_asyncio(rxs: list[mk.Receiver]) -> object:
    return asyncio.run(rxs[0].arecv())


WAYS = [receive, receive_in_time, wait_for_all, wait_beside_a_descriptor, receive_in_asyncio]


@pytest.mark.parametrize("claimed", [True, False], ids=["claimed", "nobody there"])
@pytest.mark.parametrize("count", [1, 2, 20])
@pytest.mark.parametrize("way", WAYS)
def test_a_process_that_waits_does_nothing_at_all(way: Callable[[list[mk.Receiver]], object], count, claimed):
    with ExitStack() as stack:
        rings = [stack.enter_context(mk.Ring(4096)) for _ in range(count)]
        txs = [stack.enter_context(ring.sender()) for ring in rings]
        rxs = [stack.enter_context(ring.receiver()) for ring in rings]

        def wait(words: Words) -> None:
            for rx in rxs:
                assert rx.recv(timeout=LIMIT) == b"first" if claimed else rx.try_recv() is None
            words.say("waits")
            way(rxs)

        if claimed:
            for tx in txs:
                tx.send(b"first")
        with Child(wait) as child:
            child.expect("waits")
            check_idle(child.pid)
            txs[0].send(b"last")
            assert child.wait() == 0


def test_a_sender_that_waits_for_room_does_nothing_at_all():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:

        def fill(words: Words) -> None:
            tx.send(b"x" * 4000)
            words.say("waits")
            tx.send(b"y" * 4000)

        assert rx.try_recv() is None
        with Child(fill) as child:
            child.expect("waits")
            check_idle(child.pid)
            assert rx.recv(timeout=LIMIT) == b"x" * 4000
            assert child.wait() == 0
