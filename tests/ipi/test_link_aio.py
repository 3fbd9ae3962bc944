"""Links in asyncio."""

from __future__ import annotations

import asyncio
import random
import select

import pytest

import multikernel as mk
from tests.shm.children import LIMIT, Words

from .pair import echo, joined

pytestmark = pytest.mark.timeout(120)


async def asleep(*tasks: asyncio.Task[object]) -> None:
    """Let tasks run until they sleep."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


def test_messages_requests_and_their_types_go_both_ways():
    async def main(link: mk.Link) -> None:
        await link.asend(b"one", type=mk.IO, subtype=7)
        message = await link.arecv()
        assert (message.payload, message.type, message.subtype) == (b"one", mk.IO, 7)
        message = await link.arequest(b"two", type=mk.NETWORK, subtype=3)
        assert (message.payload, message.type, message.subtype) == (b"two", mk.NETWORK, 3)

    with joined(echo) as (link, _):
        asyncio.run(main(link))


def test_async_for_ends_with_the_link():
    def send(link: mk.Link, words: Words) -> None:
        for number in range(1000):
            link.send(b"%d" % number)

    async def main(link: mk.Link) -> list[int]:
        return [int(message.payload) async for message in link]

    with joined(send) as (link, child):
        assert asyncio.run(main(link)) == list(range(1000))
        assert child.wait() == 0


def in_any_order(link: mk.Link, words: Words) -> None:
    """Answers ten at a time, the last first, with a message of its own between."""
    while True:
        try:
            batch = [link.recv() for _ in range(10)]
        except mk.Closed:
            return
        for message in reversed(batch):
            link.send(b"plain " + message.payload)
            message.reply(message.payload)


def test_many_requests_are_under_way_at_once_beside_a_task_that_receives():
    """Whichever task takes a message, it gets to the one that it is for."""

    async def main(link: mk.Link) -> None:
        async def receive() -> set[bytes]:
            return {(await link.arecv()).payload for _ in range(200)}

        receiving = asyncio.create_task(receive())
        answers = await asyncio.gather(*(link.arequest(b"%d" % number, timeout=LIMIT) for number in range(200)))
        assert [answer.payload for answer in answers] == [b"%d" % number for number in range(200)]
        assert await asyncio.wait_for(receiving, LIMIT) == {b"plain %d" % number for number in range(200)}

    with joined(in_any_order) as (link, _):
        asyncio.run(main(link))


def test_both_lanes_may_be_full_and_empty_in_turn_in_one_loop():
    """The two ends have one socket between them: neither takes what was to wake the other."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    count = 3000

    async def main(link: mk.Link) -> None:
        async def send() -> None:
            for number in range(count):
                await link.asend(b"%d" % number * chance.randrange(1, 200))
                if not chance.randrange(20):
                    await asyncio.sleep(0)

        async def receive() -> None:
            for number in range(count):
                payload = (await link.arecv()).payload
                assert payload.startswith(b"%d" % number)
                if not chance.randrange(50):
                    await asyncio.sleep(0.001)

        await asyncio.wait_for(asyncio.gather(send(), receive()), 5 * LIMIT)

    with joined(echo, capacity=4096) as (link, _):
        asyncio.run(main(link))


def mute(link: mk.Link, words: Words) -> None:
    """Receives at each word, and answers at the next."""
    words.hear()
    message = link.recv()
    words.say("has it")
    words.hear()
    message.reply(b"late")
    link.send(b"after it")
    words.hear()


def test_a_request_gives_up_in_time_and_its_reply_is_late():
    async def main(link: mk.Link) -> None:
        with pytest.raises(mk.Timeout, match=r"child did not reply within 0\.05 s"):
            await link.arequest(b"x", timeout=0.05)

    async def after(link: mk.Link) -> bytes:
        return (await link.arecv()).payload

    with joined(mute) as (link, child):
        asyncio.run(main(link))
        child.say("go")
        child.expect("has it")
        child.say("go")
        assert asyncio.run(after(link)) == b"after it"
        assert link.late_replies == 1
        child.say("end")


@pytest.mark.parametrize("timeout", [None, float("inf")])
def test_a_request_may_wait_for_ever(timeout):
    with joined(echo) as (link, _):
        assert asyncio.run(link.arequest(b"x", timeout=timeout)).payload == b"x"


@pytest.mark.parametrize("timeout", [-1, 0])
def test_a_request_whose_time_is_over_at_once_waits_for_nothing(timeout):
    with joined(mute) as (link, _):
        with pytest.raises(mk.Timeout):
            asyncio.run(link.arequest(b"x", timeout=timeout))
        with pytest.raises(ValueError, match="nan"):
            asyncio.run(link.arequest(b"x", timeout=float("nan")))


def test_a_cancelled_request_gives_up_too():
    async def main(link: mk.Link) -> None:
        task = asyncio.create_task(link.arequest(b"x"))
        await asleep(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with joined(mute) as (link, child):
        asyncio.run(main(link))
        child.say("go")
        child.expect("has it")
        child.say("go")
        assert link.recv(timeout=LIMIT).payload == b"after it"
        assert link.late_replies == 1
        child.say("end")


def speak_first(link: mk.Link, words: Words) -> None:
    request = link.recv()
    link.send(b"first")
    request.reply(b"reply")
    words.hear()


def test_a_request_that_blocks_hands_what_it_finds_to_the_task_that_receives():
    async def main(link: mk.Link) -> None:
        receiving = asyncio.create_task(link.arecv())
        await asleep(receiving)
        assert link.request(b"x", timeout=LIMIT).payload == b"reply"
        assert (await asyncio.wait_for(receiving, LIMIT)).payload == b"first"

    with joined(speak_first) as (link, child):
        asyncio.run(main(link))
        child.say("end")


def test_a_second_task_that_receives_is_told_so():
    async def main(link: mk.Link) -> None:
        first = asyncio.create_task(link.arecv())
        await asleep(first)
        with pytest.raises(mk.NotOwner, match="another task"):
            await link.arecv()
        await link.asend(b"x")
        assert (await first).payload == b"x"

    with joined(echo) as (link, _):
        asyncio.run(main(link))


def test_interrupts_are_handled_while_a_task_receives():
    def interrupt(link: mk.Link, words: Words) -> None:
        words.hear()
        link.ipi(7)
        link.send(b"after")
        words.hear()

    async def main(link: mk.Link) -> list[object]:
        happened: list[object] = []
        link.on_ipi(7, lambda vector, count: happened.append((vector, count)))
        task = asyncio.create_task(link.arecv())
        await asleep(task)
        child.say("go")
        happened.append((await task).payload)
        return happened

    with joined(interrupt) as (link, child):
        assert asyncio.run(main(link)) == [(7, 1), b"after"]
        child.say("end")


def test_the_death_of_the_other_side_ends_every_task():
    async def main(link: mk.Link) -> None:
        tasks = [
            asyncio.create_task(link.arecv()),
            *(asyncio.create_task(link.arequest(b"%d" % n, timeout=None)) for n in range(3)),
        ]
        await asleep(*tasks)
        child.kill()
        for task in tasks:
            with pytest.raises(mk.Closed):
                await asyncio.wait_for(task, LIMIT)

    with joined(mute) as (link, child):
        asyncio.run(main(link))


def test_closing_the_link_ends_every_task():
    async def main(link: mk.Link) -> None:
        tasks = [asyncio.create_task(link.arecv()), asyncio.create_task(link.arequest(b"x", timeout=None))]
        await asleep(*tasks)
        link.close()
        for task in tasks:
            with pytest.raises(mk.Closed):
                await asyncio.wait_for(task, LIMIT)

    with joined(mute) as (link, _):
        asyncio.run(main(link))


def test_after_asyncio_the_descriptor_still_says_whether_something_is_there():
    async def main(link: mk.Link) -> None:
        assert (await link.arequest(b"x")).payload == b"x"

    with joined(echo) as (link, _):
        asyncio.run(main(link))
        for _ in range(20):
            assert not select.select([link], [], [], 0)[0]
            link.send(b"y")
            assert select.select([link], [], [], LIMIT)[0]
            assert link.recv(timeout=LIMIT).payload == b"y"
