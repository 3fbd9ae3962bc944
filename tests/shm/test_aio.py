"""Rings in event loops: asyncio's own methods, and `fileno` for others."""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

import multikernel as mk
from multikernel.shm.aio import EAGER
from tests.eventually import until

from .children import LIMIT, Child, Words
from .test_waiting import voluntary_switches

Run = Callable[[Awaitable[Any]], Any]


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def loops(request: pytest.FixtureRequest) -> ModuleType:
    """Each kind of loop that is there."""
    module: ModuleType = pytest.importorskip(request.param)
    with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))  # libuv keeps a pipe from its first loop on, for itself
    return module


@pytest.fixture
def run(loops: ModuleType) -> Run:
    """As asyncio.run."""

    def run_in_loop(main: Awaitable[Any]) -> Any:
        with asyncio.Runner(loop_factory=loops.new_event_loop) as runner:
            return runner.run(asyncio.wait_for(main, LIMIT))

    return run_in_loop


@pytest.fixture
def ends() -> Iterator[tuple[mk.Sender, mk.Receiver]]:
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        yield tx, rx


def is_watched(end: mk.Sender | mk.Receiver) -> bool:
    """Whether the end is in the loop; it is not from then on."""
    return asyncio.get_running_loop().remove_reader(end.fileno())


async def asleep(*tasks: asyncio.Task[Any]) -> None:
    """Let tasks run until they sleep: a few turns of the loop, in which nothing else happens."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


def test_every_message_from_another_process_is_received_by_async_for(ends, run):
    tx, rx = ends
    count = 3000

    def send(words: Words) -> None:
        for number in range(count):
            tx.send(b"%d" % number)
        tx.close()

    async def receive() -> list[int]:
        return [int(message) async for message in rx]

    with Child(send) as child:
        assert run(receive()) == list(range(count))
        assert child.wait() == 0


def test_both_ends_of_a_full_ring_take_turns_in_one_loop(ends, run):
    tx, rx = ends
    count = 500

    async def send() -> None:
        for number in range(count):
            await tx.asend(number.to_bytes(2, "little") * 400)
        tx.close()

    async def receive() -> list[bytes]:
        received = []
        while len(received) < count:
            received.append(await rx.arecv())
        with pytest.raises(mk.Closed):
            await rx.arecv()
        return received

    async def main() -> list[bytes]:
        return (await asyncio.gather(receive(), send()))[0]

    assert run(main()) == [number.to_bytes(2, "little") * 400 for number in range(count)]


def test_elements_go_the_same_way(run):
    import numpy as np

    with mk.Ring(4096, dtype="i4", shape=(2,)) as ring, ring.sender() as tx, ring.receiver() as rx:

        async def main() -> list[list[int]]:
            receiving = asyncio.create_task(rx.arecv())
            await asleep(receiving)
            await tx.asend(np.array([1, 2], "i4"))
            await tx.asend(np.array([3, 4], "i4"))
            return [(await receiving).tolist(), (await rx.arecv()).tolist()]

        assert run(main()) == [[1, 2], [3, 4]]


def test_what_is_there_already_needs_no_loop(ends):
    tx, rx = ends
    with pytest.raises(StopIteration) as sent:
        tx.asend(b"x").send(None)
    assert sent.value.value is None
    with pytest.raises(StopIteration) as received:
        rx.arecv().send(None)
    assert received.value.value == b"x"


def test_an_async_for_that_never_waits_lets_other_tasks_run(ends, run):
    tx, rx = ends
    messages = [b"%d" % number for number in range(100)]
    assert tx.send_many(messages) > EAGER
    tx.close()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> list[bytes]:
        other = asyncio.create_task(count())
        received = [message async for message in rx]
        other.cancel()
        return received

    assert run(main()) == messages
    assert turns > 0


# --- cancellation, and other tasks


def test_a_cancelled_receive_has_taken_nothing_and_left_the_loop(ends, run):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    tx, rx = ends
    count = 500

    async def main() -> list[int]:
        received: list[int] = []
        sent = cancelled = 0
        while len(received) < count:
            task = asyncio.create_task(rx.arecv())
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if sent < count and chance.randrange(2):
                tx.send(b"%d" % sent)
                sent += 1
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            task.cancel()
            try:
                received.append(int(await task))
            except asyncio.CancelledError:
                cancelled += 1
                assert not is_watched(rx)
        assert cancelled > 0
        return received

    assert run(main()) == list(range(count))


def test_a_cancelled_send_has_sent_nothing(ends, run):
    tx, rx = ends

    async def main() -> None:
        while tx.try_send(b"x" * 100):
            pass
        task = asyncio.create_task(tx.asend(b"never" * 20))
        await asleep(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_watched(tx)
        assert set(rx.recv_many(1000)) == {b"x" * 100}
        assert rx.try_recv() is None

    run(main())


@pytest.mark.parametrize("end", ["receiver", "sender"])
def test_a_second_task_on_one_end_is_told_so_and_the_first_goes_on(ends, run, end):
    tx, rx = ends

    async def main() -> None:
        if end == "sender":
            while tx.try_send(b"x"):
                pass
        call = rx.arecv if end == "receiver" else lambda: tx.asend(b"y")
        first = asyncio.create_task(call())
        await asleep(first)
        with pytest.raises(mk.NotOwner, match=f"another task waits for this {end}"):
            await call()
        if end == "receiver":
            tx.send(b"x")
            assert await first == b"x"
        else:
            rx.recv_many(10)
            await first
        assert not is_watched(tx if end == "sender" else rx)

    run(main())


def test_a_task_of_another_loop_is_told_so(ends):
    tx, rx = ends
    waits = threading.Event()

    async def first() -> bytes:
        task = asyncio.create_task(rx.arecv())
        await asleep(task)
        waits.set()
        return await asyncio.wait_for(task, LIMIT)

    received: list[bytes] = []
    thread = threading.Thread(target=lambda: received.append(asyncio.run(first())))
    thread.start()
    try:
        assert waits.wait(LIMIT)
        with pytest.raises(mk.NotOwner, match="another event loop"):
            asyncio.run(rx.arecv())
    finally:
        tx.send(b"x")
        thread.join()
    assert received == [b"x"]


def test_loops_may_come_one_after_the_other(ends, run):
    tx, rx = ends
    for number in range(4):

        async def main(number: int = number) -> bytes:
            task = asyncio.create_task(rx.arecv())
            await asleep(task)
            await tx.asend(b"%d" % number)
            return await task

        assert run(main()) == b"%d" % number


def test_a_loop_that_ended_in_the_middle_is_no_obstacle_for_the_next(ends, run):
    tx, rx = ends

    async def leave() -> None:
        await asleep(asyncio.create_task(rx.arecv()))

    run(leave())
    tx.send(b"x")
    assert run(rx.arecv()) == b"x"


# --- ends


@pytest.mark.parametrize("where", ["same loop", "another thread"])
@pytest.mark.parametrize("end", ["receiver", "sender"])
def test_closing_an_end_here_wakes_the_task_that_waits_for_it(ends, run, end, where):
    tx, rx = ends

    async def main() -> None:
        if end == "sender":
            while tx.try_send(b"x"):
                pass
        task = asyncio.create_task(rx.arecv() if end == "receiver" else tx.asend(b"y"))
        await asleep(task)
        close = rx.close if end == "receiver" else tx.close
        if where == "same loop":
            close()
        else:
            await asyncio.to_thread(close)
        with pytest.raises(mk.Closed, match="closed here"):
            await task

    run(main())


@pytest.mark.parametrize("how", ["closes", "dies"])
def test_the_end_of_the_other_side_wakes_the_task(ends, run, how):
    tx, rx = ends

    def leave(words: Words) -> None:
        tx.send(b"x")
        words.hear()
        tx.close()
        words.hear()

    async def main(child: Child) -> None:
        assert await rx.arecv() == b"x"
        task = asyncio.create_task(rx.arecv())
        await asleep(task)
        child.say("close") if how == "closes" else child.kill()
        with pytest.raises(mk.Closed, match=f"pid {child.pid}"):
            await task

    with Child(leave) as child:
        run(main(child))


# --- what it costs to wait


def test_a_loop_that_waits_is_never_woken_and_has_no_thread(ends, run):
    tx, rx = ends

    def wait(words: Words) -> None:
        async def receive() -> None:
            words.say((await rx.arecv()).decode())
            words.say((await rx.arecv()).decode())

        run(receive())
        rx.close()

    with Child(wait) as child:
        tx.send(b"one")
        child.expect("one")
        child.sleeps()
        last, same = -1, 0

        def settled() -> bool:
            nonlocal last, same
            now = voluntary_switches(child.pid)
            last, same = now, same + 1 if now == last else 0
            return same > 100

        until(settled)
        begin = voluntary_switches(child.pid)
        child.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):  # nothing comes: only for the time
            child.hear()
        child.sock.settimeout(LIMIT)
        assert voluntary_switches(child.pid) == begin
        assert os.listdir(f"/proc/{child.pid}/task") == [str(child.pid)]
        tx.send(b"two")
        child.expect("two")
        assert child.wait() == 0


# --- other loops


def take_with(wait_readable: Callable[[int], Awaitable[None]]) -> Callable[[mk.Receiver], Awaitable[list[int]]]:
    """What docs/waiting.md says to do in a loop that is not asyncio's."""

    async def take(rx: mk.Receiver) -> list[int]:
        received = []
        while True:
            try:
                message = rx.try_recv()
            except mk.Closed:
                return received
            if message is None:
                await wait_readable(rx.fileno())
            else:
                received.append(int(message))

    return take


@pytest.mark.parametrize("backend", ["trio", "anyio on asyncio", "anyio on trio"])
def test_another_loop_waits_for_the_descriptor(ends, backend):
    library = pytest.importorskip(backend.split()[0])
    tx, rx = ends
    count = 1000

    def send(words: Words) -> None:
        for number in range(count):
            tx.send(b"%d" % number)
        tx.close()

    with Child(send) as child:
        if backend == "trio":
            received = library.run(take_with(library.lowlevel.wait_readable), rx)
        else:
            *_, loop = backend.split()
            importlib.import_module(loop)
            received = library.run(take_with(library.wait_readable), rx, backend=loop)
        assert received == list(range(count))
        assert child.wait() == 0
