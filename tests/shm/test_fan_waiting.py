"""Waiting for mailboxes and broadcasts: `mk.wait` beside other things, and asyncio."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Awaitable, Iterator
from typing import Any

import pytest

import multikernel as mk
from tests.eventually import until

from .children import LIMIT, Child, Words
from .objects import HEAD, producer
from .test_mailbox import door_of, lane_object
from .test_wait import wait_until_asleep


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.fixture(params=["wait", "miss"])
def cast(request: pytest.FixtureRequest) -> Iterator[mk.Broadcast]:
    with mk.Broadcast(4096, slow=request.param) as made:
        yield made


def run(main: Awaitable[Any]) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(main, LIMIT)

    return asyncio.run(limited())


# --- mk.wait


def test_a_mailbox_is_waited_for_beside_a_ring_and_a_descriptor(box, rx, pipe):
    with mk.Ring(4096) as ring, ring.sender() as ring_tx, ring.receiver() as ring_rx, box.sender() as tx:
        objects = [rx, ring_rx, pipe[0]]
        assert mk.wait(objects, timeout=0) == []
        tx.send(b"1")
        assert mk.wait(objects, timeout=LIMIT) == [rx]
        assert mk.wait([rx], timeout=LIMIT) == [rx]  # nothing was taken
        assert rx.recv() == b"1"
        assert mk.wait(objects, timeout=0) == []
        ring_tx.send(b"2")
        assert mk.wait(objects, timeout=LIMIT) == [ring_rx]
        ring_rx.recv()
        os.write(pipe[1], b"3")
        assert mk.wait(objects, timeout=LIMIT) == [pipe[0]]


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "with a ring"])
def test_a_sender_that_comes_or_goes_without_a_message_is_no_news(box, rx, beside):
    """Its receive would wait, so whoever reads what `wait` names would be stuck."""
    with mk.Ring(4096) as ring, ring.sender(), ring.receiver() as other:
        objects = [rx, other] if beside else [rx]
        assert mk.wait(objects, timeout=0) == []
        with box.sender() as stays:
            with box.sender():
                assert mk.wait(objects, timeout=0.01) == []
            assert mk.wait(objects, timeout=0.01) == []
            stays.send(b"x")
            assert mk.wait(objects, timeout=LIMIT) == [rx]
            assert rx.recv_from() == (stays.number, b"x")


def test_a_sender_of_another_process_wakes_who_waits_for_a_mailbox(box, rx, pipe):
    parent = os.getpid()

    def send(_: Words) -> None:
        with box.sender() as tx:
            wait_until_asleep(parent)
            tx.send(b"late")

    assert mk.wait([rx, pipe[0]], timeout=0) == []
    with Child(send) as child:
        assert mk.wait([rx, pipe[0]], timeout=LIMIT) == [rx]
        assert rx.recv() == b"late"
        assert child.wait() == 0


def test_the_end_of_a_mailbox_is_news(box, rx):
    with box.sender() as tx:
        tx.send(b"x")
        rx.recv()
    box.close()
    assert mk.wait([rx], timeout=LIMIT) == [rx]
    with pytest.raises(mk.Closed):
        rx.recv()


def test_a_sender_that_lies_is_news_and_told_by_the_receive(box, rx):
    own = lane_object("consumer", "test", 4096)
    ours, theirs = socket.socketpair()
    with producer() as liar, ours:
        with theirs:
            door_of(box).send({"sender": 77}, [own, liar.fd, theirs.fileno()])
        os.close(own)
        assert mk.wait([rx], timeout=0) == []
        liar.word(HEAD, 1 << 62)
        ours.send(b"!")
        assert mk.wait([rx], timeout=LIMIT) == [rx]
        assert mk.wait([rx], timeout=LIMIT) == [rx]  # also when asked again
        with pytest.raises(mk.CorruptLane, match="sender 77 wrote a head"):
            rx.recv(timeout=LIMIT)
        assert mk.wait([rx], timeout=0) == []


def test_a_mailbox_that_was_closed_here_or_is_in_use_says_so(box, rx):
    def receive() -> None:
        while True:
            try:
                rx.recv()
            except mk.NotOwner:  # the wait was in it just then
                continue
            except mk.Closed:
                return

    def is_refused() -> bool:
        try:
            mk.wait([rx], timeout=0)
        except mk.NotOwner:
            return True
        return False

    assert not is_refused()
    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    until(is_refused)
    box.close()
    thread.join(LIMIT)
    rx.close()
    with pytest.raises(mk.Closed, match="closed here"):
        mk.wait([rx], timeout=0)


def test_receivers_of_a_broadcast_are_waited_for_each_at_its_own_pace(cast, pipe):
    with cast.sender() as tx, cast.receiver() as one, cast.receiver() as two:
        assert mk.wait([one, pipe[0], two], timeout=0) == []
        tx.send(b"1")
        assert mk.wait([one, pipe[0], two], timeout=LIMIT)[0] in (one, two)
        assert one.recv() == two.recv() == b"1"
        tx.send(b"2")
        assert one.recv() == b"2"
        assert mk.wait([one, pipe[0], two], timeout=LIMIT) == [two]
        assert two.recv() == b"2"
        tx.close()
        assert mk.wait([one], timeout=LIMIT) == [one]
        with pytest.raises(mk.Closed):
            one.recv()


# --- asyncio


def test_an_async_for_gets_what_all_senders_of_a_mailbox_send(box, rx):
    count = 500

    def send(_: Words) -> None:
        for turn in range(2):
            with box.sender() as tx:
                for number in range(count):
                    tx.send(b"%d %d" % (turn, number))

    async def receive() -> list[bytes]:
        found = []
        async for message in rx:
            found.append(message)
            if len(found) == 2 * count:
                box.close()
        return found

    with Child(send) as child:
        found = run(receive())
        assert child.wait() == 0
    assert [each for each in found if each.startswith(b"0")] == [b"0 %d" % number for number in range(count)]
    assert [each for each in found if each.startswith(b"1")] == [b"1 %d" % number for number in range(count)]
    assert len(found) == 2 * count


def test_an_async_for_gets_a_broadcast(cast):
    async def main() -> list[list[bytes]]:
        with cast.sender() as tx, cast.receiver() as one, cast.receiver() as two:

            async def all_of(rx: Any) -> list[bytes]:
                return [message async for message in rx]

            tasks = [asyncio.create_task(all_of(rx)) for rx in (one, two)]
            for number in range(20):
                tx.send(b"%d" % number)
                await asyncio.sleep(0)
            tx.close()
            return await asyncio.gather(*tasks)

    assert run(main()) == [[b"%d" % number for number in range(20)]] * 2


def test_a_cancelled_receive_of_a_mailbox_has_taken_nothing(box, rx):
    async def main() -> None:
        with box.sender() as tx:
            tx.send(b"x")
            assert await rx.arecv() == b"x"
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(rx.arecv(), 0.01)
            assert not asyncio.get_running_loop().remove_reader(rx.fileno())
            tx.send(b"y")
            assert await rx.arecv() == b"y"

    run(main())


def test_closing_a_receiver_here_wakes_the_task_that_waits_for_it(box, rx, cast):
    async def main() -> None:
        with cast.sender(), cast.receiver() as other:
            for end in (rx, other):
                task = asyncio.create_task(end.arecv())
                for _ in range(5):
                    await asyncio.sleep(0)
                assert not task.done()
                end.close()
                with pytest.raises(mk.Closed, match="closed here"):
                    await task

    run(main())
