"""A call can be cancelled until a worker begins with it, also when one has it at hand already."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import random
import threading
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest

import multikernel as mk
from tests.eventually import PATIENCE

from . import work
from .test_executor_dealing import warm_up

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


@pytest.fixture(params=[ProcessPoolExecutor, mk.CoreExecutor])
def one(request, fork, gate):
    """One worker, which is at a task for as long as the gate is shut; and that task."""
    with request.param(1, fork, work.remember, (gate.given,)) as executor:
        if request.param is mk.CoreExecutor:
            warm_up(executor)
        held = executor.submit(work.wait_at_gate)
        gate.wait_for(1)
        yield executor, held
        gate.open()


def test_what_no_worker_has_begun_with_can_be_cancelled(one, gate):
    """Of ProcessPoolExecutor's some are on their way to the worker, and are not: a pipe takes nothing back."""
    executor, held = one
    waiting = [executor.submit(work.same, number) for number in range(100)]
    cancelled = [future for future in waiting if future.cancel()]
    assert len(cancelled) == 100 if isinstance(executor, mk.CoreExecutor) else 98 <= len(cancelled) <= 100
    assert all(future.cancelled() and future.done() and future.cancel() for future in cancelled)
    assert not held.cancel()
    assert held.running()
    gate.open()
    assert held.result(PATIENCE)
    done, _ = concurrent.futures.wait(cancelled, PATIENCE)
    assert len(done) == len(cancelled)
    assert not held.cancel()
    assert executor.submit(work.same, "the next one").result(PATIENCE) == "the next one"
    for future in cancelled:
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(0)


def test_those_between_are_done(one, gate):
    executor, _ = one
    waiting = [executor.submit(work.same, number) for number in range(60)]
    cancelled = {number for number in range(2, 60, 3) if waiting[number].cancel()}
    assert cancelled
    gate.open()
    for number, future in enumerate(waiting):
        if number not in cancelled:
            assert future.result(PATIENCE) == number


def test_whoever_waits_for_one_is_told(one, gate):
    executor, _ = one
    future = [executor.submit(work.same, number) for number in range(10)][-1]
    called = []
    future.add_done_callback(called.append)
    waiting = threading.Thread(target=concurrent.futures.wait, args=([future],))
    waiting.start()
    assert future.cancel()
    gate.open()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert called == [future]


def test_a_cancelled_asyncio_task_cancels_its_call(one, gate):
    executor, held = one

    async def give_up():
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(executor, work.same, number) for number in range(20)]
        calls[-1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[-1]
        gate.open()
        return await asyncio.gather(*calls[:-1])

    assert asyncio.run(give_up()) == list(range(19))
    assert held.result(PATIENCE)


def test_each_call_is_made_or_cancelled_whenever_that_comes(tmp_path, fork):
    """Cancelled at random while workers are busy with them: what was cancelled was never begun, all else done once."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    notes = os.open(tmp_path / "notes", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        with mk.CoreExecutor(2, fork) as executor:
            warm_up(executor)
            count, cancelled, futures = 3000, set(), []
            for number in range(count):
                futures.append(executor.submit(work.note, notes, number))
                if not chance.randrange(3):
                    which = chance.randrange(max(0, number - 200), number + 1)
                    if futures[which].cancel():
                        cancelled.add(which)
            for number, future in enumerate(futures):
                if number not in cancelled:
                    assert future.result(PATIENCE) == number
        data = os.pread(notes, 4 * count + 1, 0)
        done = Counter(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))
        assert done == Counter(set(range(count)) - cancelled)
        assert len(cancelled) > 10
    finally:
        os.close(notes)


def test_a_large_call_that_was_cancelled_leaves_nothing_in_the_way(fork, gate):
    with mk.CoreExecutor(1, fork, work.remember, (gate.given,)) as executor:
        warm_up(executor)
        held = executor.submit(work.wait_at_gate)
        gate.wait_for(1)
        large = [executor.submit(work.same, bytes([number]) * 50_000) for number in range(20)]
        assert all(future.cancel() for future in large[::2])
        gate.open()
        assert held.result(PATIENCE)
        assert [future.result(PATIENCE)[0] for future in large[1::2]] == list(range(1, 20, 2))


def test_those_that_were_cancelled_do_not_count_for_a_workers_most(gate):
    import multiprocessing

    spawn = multiprocessing.get_context("spawn")
    with mk.CoreExecutor(1, spawn, work.remember, (gate.given,), max_tasks_per_child=3) as executor:
        held = executor.submit(work.wait_at_gate)
        gate.wait_for(1)
        waiting = [executor.submit(work.pid) for _ in range(8)]
        assert all(future.cancel() for future in waiting[:5])
        gate.open()
        assert held.result(PATIENCE)
        first, second, third = (future.result(PATIENCE) for future in waiting[5:])
        assert first == second != third


def test_a_broken_pool_has_nothing_left_to_cancel(fork):
    with mk.CoreExecutor(1, fork) as executor:
        warm_up(executor)
        futures = [executor.submit(work.die), *[executor.submit(work.same, number) for number in range(10)]]
        for future in futures:
            assert future.exception(PATIENCE) or future.result(PATIENCE) is not None
            assert not future.cancel()
