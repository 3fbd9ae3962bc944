"""Queues between processes: passed on by fork, spawn and forkserver, and what remains when some of them are killed."""

from __future__ import annotations

import collections
import multiprocessing
import os
import queue
import random
import signal

import pytest

import multikernel as mk
from tests.eventually import PATIENCE, until
from tests.shm.children import state

from . import targets

METHODS = ["fork", "spawn", "forkserver"]

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def start(method, target, *args):
    process = multiprocessing.get_context(method).Process(target=target, args=args)
    process.start()
    return process


def join(process, code=0):
    process.join(PATIENCE)
    assert process.exitcode == code
    process.close()


def kill(process):
    process.kill()
    join(process, -signal.SIGKILL)


# --- passing on


@pytest.mark.parametrize("method", METHODS)
def test_many_put_and_many_get(method):
    q, out = mk.Queue(), mk.SimpleQueue()
    producers = [start(method, targets.produce, q, me, 3_000) for me in range(2)]
    consumers = [start(method, targets.consume, q, out) for _ in range(2)]
    got = [out.get() for _ in range(6_000)]
    assert sorted(got) == [(me, i) for me in range(2) for i in range(3_000)]
    for _ in consumers:
        q.put(None)
    for process in producers + consumers:
        join(process)
    assert q.empty()
    assert out.empty()


@pytest.mark.parametrize("method", METHODS)
def test_places_are_one_number_for_all(method):
    q, out = mk.Queue(maxsize=2), mk.SimpleQueue()
    child = start(method, targets.put_all, q, [1, 2, 3, 4])
    assert q.get(timeout=PATIENCE) == 1
    assert q.get(timeout=PATIENCE) == 2
    until(lambda: q.qsize() == 2)
    assert q.full()
    with pytest.raises(queue.Full):
        q.put("no", timeout=0.01)
    assert [q.get(timeout=PATIENCE) for _ in range(2)] == [3, 4]
    join(child)
    for value in range(2):
        q.put(value)
    child = start(method, targets.get_one, q, out)
    q.put("woken by a child", timeout=PATIENCE)
    assert out.get() == 0
    join(child)


@pytest.mark.parametrize("method", METHODS)
def test_objects_of_one_producer_come_in_order(method):
    q = mk.Queue()
    producers = [start(method, targets.produce, q, me, 5_000) for me in range(2)]
    last = {0: -1, 1: -1}
    for _ in range(10_000):
        me, i = q.get(timeout=PATIENCE)
        assert i == last[me] + 1
        last[me] = i
    for process in producers:
        join(process)


def test_a_forked_childs_objects_are_its_own():
    q = mk.Queue()
    q.put("parent")
    pid = os.fork()
    if pid == 0:
        q.put("child")
        os._exit(0)
    os.waitpid(pid, 0)
    q.put("parent again")
    assert sorted(q.get(timeout=PATIENCE) for _ in range(3)) == ["child", "parent", "parent again"]


def test_a_child_that_drops_its_copy_takes_nothing_from_its_parent():
    q = mk.Queue()
    q.put(1)
    pid = os.fork()
    if pid == 0:
        del q
        os._exit(0)
    os.waitpid(pid, 0)
    q.put(2)
    assert [q.get(timeout=PATIENCE) for _ in range(2)] == [1, 2]


# --- ending


def test_what_is_in_a_lane_stays_when_its_process_ends_without_a_word():
    q = mk.Queue()
    join(start("fork", targets.put_and_end_at_once, q, 1_000))
    assert [q.get(timeout=PATIENCE) for _ in range(1_000)] == list(range(1_000))


@pytest.mark.parametrize("method", METHODS)
def test_a_process_that_ends_waits_until_all_is_in_its_lane(method):
    q = mk.Queue()
    child = start(method, targets.put_all, q, range(20_000))
    assert [q.get(timeout=PATIENCE) for _ in range(20_000)] == list(range(20_000))
    join(child)


@pytest.mark.parametrize("method", METHODS)
def test_so_does_one_that_closes_and_joins(method):
    q = mk.Queue()
    child = start(method, targets.put_close_and_join, q, 20_000)
    assert [q.get(timeout=PATIENCE) for _ in range(20_000)] == list(range(20_000))
    join(child)


@pytest.mark.parametrize("method", METHODS)
def test_one_that_cancelled_that_does_not(method):
    q = mk.Queue()
    join(start(method, targets.put_without_waiting, q, 20_000))
    assert q.get(timeout=PATIENCE) == 0


def test_lanes_of_processes_that_have_ended_are_used_again():
    q = mk.Queue()
    for i in range(40):
        join(start("fork", targets.put_and_end_at_once, q, 1))
        assert q.get(timeout=PATIENCE) == 0
        if i == 5:
            held = os.fstat(q._core._fd).st_blocks
    assert os.fstat(q._core._fd).st_blocks == held


# --- being killed


def test_a_killed_producer_has_put_all_that_it_had_put():
    for _ in range(20):
        q = mk.Queue()
        child = start("fork", targets.produce_until_killed, q, 0)
        for i in range(random.randrange(3_000)):
            assert q.get(timeout=PATIENCE) == (0, i)
            last = i
        kill(child)
        rest = []
        while not q.empty():
            rest.append(q.get_nowait()[1])
        assert rest == list(range(rest[0], rest[0] + len(rest))) if rest else True
        q.put("goes on")
        assert q.get(timeout=PATIENCE) == "goes on"
        assert not rest or last + 1 == rest[0]


def test_places_of_a_killed_producer_are_given_back():
    q = mk.Queue(maxsize=10)
    for _ in range(20):
        child = start("fork", targets.produce_until_killed, q, 0)
        for _ in range(random.randrange(300)):
            q.get(timeout=PATIENCE)
        kill(child)
        while not q.empty():
            q.get(timeout=PATIENCE)
        for i in range(10):
            q.put(i, timeout=PATIENCE)
        assert q.full()
        assert [q.get(timeout=PATIENCE) for _ in range(10)] == list(range(10))


@pytest.mark.slow
@pytest.mark.parametrize("maxsize", [0, 50])
def test_whoever_is_killed_nothing_is_lost_but_what_a_dead_consumer_held(maxsize):
    """Two put, three get; the consumers are killed at random moments, and others take their places."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    rng = random.Random(seed)
    q = mk.Queue(maxsize)
    total = 20_000
    producers = [start("fork", targets.produce, q, me, total) for me in range(2)]
    got = collections.Counter()
    killed = 0

    def new():
        reader, writer = mk.Pipe(duplex=False)
        process = start("fork", targets.consume_until_killed, q, writer)
        writer.close()
        return process, reader

    def hear(reader, most):
        try:
            while most and reader.poll():
                got[reader.recv()] += 1
                most -= 1
        except EOFError:
            return

    consumers = [new() for _ in range(3)]
    while any(producer.is_alive() for producer in producers) or not q.empty():
        for _, reader in consumers:
            hear(reader, rng.randrange(200))
        if killed < 40:
            process, reader = consumers.pop(rng.randrange(3))
            kill(process)
            hear(reader, -1)  # all that it had handed on before
            reader.close()
            killed += 1
            consumers.append(new())
    for process, reader in consumers:
        kill(process)
        hear(reader, -1)
        reader.close()
    killed += len(consumers)
    for producer in producers:
        join(producer)
    expected = {(me, i) for me in range(2) for i in range(total)}
    assert set(got) <= expected
    assert set(got.values()) == {1}
    assert len(expected) - len(got) <= killed
    assert killed > 4


def test_a_stopped_consumer_blocks_nobody_but_for_an_instant_of_its_own():
    """Stopped as it waits, it holds nothing."""
    q, out = mk.Queue(), mk.SimpleQueue()
    child = start("fork", targets.get_one, q, out)
    until(lambda: state(child.pid) == "S")
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    q.put("for whoever is awake")
    assert q.get(timeout=PATIENCE) == "for whoever is awake"
    os.kill(child.pid, signal.SIGCONT)
    q.put("for it")
    assert out.get() == "for it"
    join(child)
