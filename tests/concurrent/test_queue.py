"""Queues in one process: what multiprocessing's promise, and queue.Queue as the model of it."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
import time
from multiprocessing import get_context

import numpy as np  # noqa: TID253
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import multikernel as mk
from tests.eventually import PATIENCE

from . import targets

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def drain(q):
    found = []
    while not q.empty():
        found.append(q.get())
    return found


@pytest.mark.parametrize("kind", [mk.Queue, mk.SimpleQueue])
@pytest.mark.parametrize("value", [None, 0, "text", b"x" * 5_000, b"y" * 60_000, b"z" * 3_000_000, [1, {"a": ()}]])
def test_what_is_put_is_got(kind, value):
    q = kind()
    q.put(value)
    q.put("next")
    assert not q.empty()
    assert q.get() == value
    assert q.get() == "next"
    assert q.empty()


@pytest.mark.parametrize("count", [0, 10, 1_000, 6_000, 200_000])
@pytest.mark.parametrize("copy", [True, False])
def test_arrays(count, copy):
    q = mk.Queue()
    array = np.arange(count, dtype="f8")
    q.put([array, array])
    one, other = q.get(copy=copy)
    assert one is other
    np.testing.assert_array_equal(one, array)
    assert one.flags.writeable == (copy or count < 10_000)  # only long ones lie where they can be seen


def test_a_view_keeps_its_memory_and_nobody_else_waits_for_it():
    q = mk.Queue()
    descriptor = q._core._fd
    empty = os.fstat(descriptor).st_blocks
    q.put(np.arange(1_000_000))
    view = q.get(copy=False)
    part = view[10:20]
    del view
    for i in range(10_000):
        q.put(i)
        assert q.get() == i
    assert part.tolist() == list(range(10, 20))
    held = os.fstat(descriptor).st_blocks
    del part
    assert os.fstat(descriptor).st_blocks <= held - 8_000_000 // 512
    assert held - os.fstat(descriptor).st_blocks < 8_000_000 // 512 + 1_000
    assert empty > 0


def test_places():
    q = mk.Queue(maxsize=3)
    assert q.empty()
    assert not q.full()
    for i in range(3):
        assert q.qsize() == i
        q.put(i)
    assert q.full()
    with pytest.raises(queue.Full):
        q.put_nowait(3)
    with pytest.raises(queue.Full):
        q.put(3, False)
    with pytest.raises(queue.Full):
        q.put(3, True, 0.01)
    with pytest.raises(queue.Full):
        q.put(3, timeout=-1)
    assert drain(q) == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(queue.Empty):
            q.get_nowait()
        with pytest.raises(queue.Empty):
            q.get(False)
        with pytest.raises(queue.Empty):
            q.get(True, 0.01)
        with pytest.raises(queue.Empty):
            q.get(timeout=-1)


def test_many_places_and_more_objects_than_a_lane_holds():
    q = mk.Queue(maxsize=5_000)
    for i in range(5_000):
        q.put_nowait(i)
    with pytest.raises(queue.Full):
        q.put_nowait(5_000)
    assert q.qsize() == 5_000
    assert [q.get(timeout=PATIENCE) for _ in range(5_000)] == list(range(5_000))
    q.put_nowait(0)
    assert q.get() == 0


@pytest.mark.parametrize(
    ("ask", "error"), [(lambda q: q.get(timeout=0.2), queue.Empty), (lambda q: q.put(2, timeout=0.2), queue.Full)]
)
def test_a_time_out_is_not_early(ask, error):
    q = mk.Queue(maxsize=1)
    if error is queue.Full:
        q.put(1)
    began = time.monotonic()
    with pytest.raises(error):
        ask(q)
    assert 0.2 <= time.monotonic() - began < PATIENCE


def test_a_waiting_get_and_a_waiting_put_are_woken():
    q = mk.Queue(maxsize=1)
    got = []
    getting = threading.Thread(target=lambda: got.append(q.get(timeout=PATIENCE)))
    getting.start()
    q.put("first")
    getting.join()
    q.put("second")
    putting = threading.Thread(target=q.put, args=("third",), kwargs={"timeout": PATIENCE})
    putting.start()
    assert q.get() == "second"
    putting.join()
    assert (got, q.get()) == (["first"], "third")


@pytest.mark.parametrize("value", [lambda: None, threading.Lock(), [1, (n for n in "ab")]])
def test_what_cannot_be_pickled_raises_in_put_and_takes_no_place(value):
    q = mk.Queue(maxsize=1)
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        q.put(value)
    q.put_nowait("next")
    assert q.get() == "next"


class Fails:
    def __init__(self, value):
        self.value = value

    def __setstate__(self, state):
        raise ValueError("not here")


def test_what_cannot_be_unpickled_raises_in_get_and_is_gone():
    q = mk.Queue()
    q.put(Fails(1))
    q.put("next")
    with pytest.raises(ValueError, match="not here"):
        q.get()
    assert q.get() == "next"


def test_more_than_a_lane_holds_goes_by_a_thread_that_comes_only_then_and_goes():
    q = mk.Queue()
    before = set(threading.enumerate())
    for i in range(2_000):
        q.put(i)
    assert set(threading.enumerate()) == before
    for i in range(2_000, 30_000):
        q.put(i)
    feeder = set(threading.enumerate()) - before
    assert [thread.name for thread in feeder] == ["QueueFeederThread"]
    assert q.qsize() == 30_000
    assert [q.get(timeout=PATIENCE) for _ in range(30_000)] == list(range(30_000))
    q.close()
    q.join_thread()
    feeder.pop().join(PATIENCE)
    assert set(threading.enumerate()) == before


def test_close_lets_the_rest_out_and_join_waits_for_it():
    q, other = mk.Queue(), None
    for i in range(10_000):
        q.put(i)
    q.close()
    q.close()
    for use in (lambda: q.put(1), q.get, q.get_nowait, lambda: q.put_nowait(1)):
        with pytest.raises(ValueError, match="closed"):
            use()
    other = mk.Queue.__new__(mk.Queue)  # another way into the same queue, as a child has it
    other.__setstate__(q._core)
    assert [other.get(timeout=PATIENCE) for _ in range(10_000)] == list(range(10_000))
    q.join_thread()


def test_join_before_close_is_a_mistake():
    q = mk.Queue()
    with pytest.raises(AssertionError, match="not closed"):
        q.join_thread()
    q.close()
    q.join_thread()


@pytest.mark.parametrize("kind", [mk.Queue, mk.SimpleQueue])
def test_it_is_shared_by_inheritance_only(kind):
    q = kind()
    with pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(q)
    q.close()
    with pytest.raises(ValueError if kind is mk.Queue else OSError, match="closed"):
        q.put(1)


def test_the_simple_one_waits_when_its_lane_is_full():
    q = mk.SimpleQueue()
    before = set(threading.enumerate())
    putting = threading.Thread(target=targets.put_all, args=(q, range(20_000)))
    putting.start()
    assert set(threading.enumerate()) - before <= {putting}
    assert [q.get() for _ in range(20_000)] == list(range(20_000))
    putting.join()


def test_threads_of_one_process_share_it():
    q, out = mk.Queue(maxsize=50), mk.Queue()
    threads = [threading.Thread(target=targets.produce, args=(q, me, 2_000)) for me in range(3)]
    takers = [threading.Thread(target=targets.consume, args=(q, out)) for _ in range(3)]
    for thread in threads + takers:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in takers:
        q.put(None)
    for thread in takers:
        thread.join()
    got = [out.get(timeout=PATIENCE) for _ in range(6_000)]
    assert sorted(got) == [(me, i) for me in range(3) for i in range(2_000)]
    assert out.empty()


@pytest.mark.parametrize("use", [lambda q: q.get(), lambda q: q.get(timeout=PATIENCE), lambda q: (q.put(1), q.put(2))])
def test_a_signal_ends_a_wait(use):
    q = mk.Queue(maxsize=1)

    def interrupt(*_):
        raise KeyboardInterrupt

    def use_after(delay):
        signal.setitimer(signal.ITIMER_REAL, delay)
        use(q)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for delay in (0.0005, 0.01, 0.1):
            with pytest.raises(KeyboardInterrupt):
                use_after(delay)
            drain(q)
    finally:
        signal.signal(signal.SIGALRM, before)
    q.put_nowait("goes on")
    assert q.get() == "goes on"


def test_a_signal_that_raises_nothing_does_not_end_it():
    q = mk.Queue()
    before = signal.signal(signal.SIGALRM, lambda *_: q.put("from the handler"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert q.get(timeout=PATIENCE) == "from the handler"
    finally:
        signal.signal(signal.SIGALRM, before)


def test_idle_costs_nothing():
    """A get that waits in another process sleeps once and for all."""
    q, out = mk.Queue(), mk.SimpleQueue()
    child = get_context("fork").Process(target=targets.get_one, args=(q, out))
    child.start()

    def switches():
        with open(f"/proc/{child.pid}/status") as status:
            return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)

    seen, still = switches(), 0
    deadline = time.monotonic() + PATIENCE
    while still < 3:  # looks in a row, 0.2 s each, between which it did nothing
        assert time.monotonic() < deadline
        threading.Event().wait(0.2)
        now = switches()
        still = still + 1 if now == seen else 0
        seen = now
    q.put("at last")
    assert out.get() == "at last"
    child.join()
    child.close()


class Model(RuleBasedStateMachine):
    """queue.Queue does the same."""

    @initialize(maxsize=st.sampled_from([0, -1, 1, 3, 100]))
    def make(self, maxsize):
        self.real, self.model = mk.Queue(maxsize), queue.Queue(maxsize)

    def same(self, use):
        results = []
        for q in (self.real, self.model):
            try:
                results.append(use(q))
            except (queue.Full, queue.Empty) as error:
                results.append(type(error))
        assert results[0] == results[1]

    @rule(value=st.one_of(st.integers(), st.binary(max_size=200), st.binary(min_size=4_000, max_size=200_000)))
    def put(self, value):
        self.same(lambda q: q.put(value, block=False))

    @rule(value=st.integers(), times=st.integers(1, 60))
    def put_many(self, value, times):
        for _ in range(times):
            self.same(lambda q: q.put_nowait(value))

    @rule()
    def get(self):
        self.same(lambda q: q.get(block=False))

    @rule()
    def get_with_a_time_out(self):
        self.same(lambda q: q.get(timeout=0.001))

    @rule(times=st.integers(1, 60))
    def get_many(self, times):
        for _ in range(times):
            self.same(lambda q: q.get_nowait())

    @invariant()
    def looks_the_same(self):
        if hasattr(self, "real"):
            assert self.real.qsize() == self.model.qsize()
            assert self.real.empty() == self.model.empty()
            assert self.real.full() == self.model.full()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
