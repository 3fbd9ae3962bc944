"""`CoreExecutor` in use: results, exceptions, pinning, large objects, cancelling, `map`."""

from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing
import os
import socket
import threading
from multiprocessing import resource_sharer

import numpy as np  # noqa: TID253
import pytest

import multikernel as mk
from tests.eventually import PATIENCE

from . import work

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


@pytest.fixture
def executor(fork, gate):
    with mk.CoreExecutor(2, fork, work.remember, (gate.given,)) as executor:
        yield executor
        gate.open()


def meet(executor, count, gate):
    """Where `count` tasks are that are all at work at the same time."""
    futures = [executor.submit(work.meet_and_place) for _ in range(count)]
    gate.wait_for(count)
    gate.open()
    return [future.result(PATIENCE) for future in futures]


# --- submit


def test_a_call_is_made_in_another_process_and_its_result_comes_back(context):
    with mk.CoreExecutor(mp_context=context) as executor:
        assert executor.submit(work.keywords, 1, [2], a="b").result(PATIENCE) == ((1, [2]), {"a": "b"})
        assert executor.submit(work.pid).result(PATIENCE) != os.getpid()


def test_each_worker_is_pinned_with_all_its_threads_and_the_caller_is_not(context, gate):
    """Numpy is imported by the program, so spawned workers have its threads before they are pinned."""
    before = os.sched_getaffinity(0)
    with mk.CoreExecutor(2, context, work.remember, (gate.given,)) as executor:
        expected = sorted(executor.cpus)
        places = meet(executor, 2, gate)
        assert len({pid for pid, *_ in places}) == 2
        assert sorted(cpu for _, cpus, _, _ in places for cpu in cpus) == expected
        for _, cpus, threads, here in places:
            assert len(cpus) == 1
            assert all(thread == cpus for thread in threads)
            assert here in cpus
    assert os.sched_getaffinity(0) == before


def test_without_arguments_there_is_one_worker_a_usable_cpu():
    with mk.CoreExecutor() as executor:
        assert executor.cpus == tuple(sorted(os.sched_getaffinity(0)))


def test_cpus_are_chosen_as_everywhere_here(fork, cpus):
    with mk.CoreExecutor(cpus=str(cpus[-1]), mp_context=fork) as executor:
        assert executor.cpus == cpus[-1:]
        assert executor.submit(work.place).result(PATIENCE)[1] == {cpus[-1]}


def test_more_workers_than_cpus_share_them_in_turn(fork, gate):
    usable = sorted(os.sched_getaffinity(0))
    with mk.CoreExecutor(len(usable) + 1, fork, work.remember, (gate.given,)) as executor:
        found = [cpu for _, (cpu,), _, _ in meet(executor, len(usable) + 1, gate)]
        assert sorted(found) == sorted([*usable, usable[0]])


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"max_workers": 0}, ValueError, "greater than 0"),
        ({"max_workers": 1, "cpus": 0}, ValueError, "not both"),
        ({"cpus": 8000}, mk.ResourceError, "8000: this process may use"),
        ({"cpus": "none"}, mk.ResourceError, "none: this process may use"),
        ({"cpus": "x"}, ValueError, "not a list of cpus"),
        ({"initializer": 5}, TypeError, "must be a callable, not int"),
        ({"max_tasks_per_child": 0}, ValueError, ">= 1, not 0"),
        ({"max_tasks_per_child": 1.5}, TypeError, "not float"),
        (
            {"max_tasks_per_child": 1, "mp_context": multiprocessing.get_context("fork")},
            ValueError,
            "incompatible with the 'fork'",
        ),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        mk.CoreExecutor(**arguments)


def test_workers_are_used_again(executor):
    first = {executor.submit(work.pid).result(PATIENCE) for _ in range(50)}
    second = set(executor.map(work.pid, range(500)))
    assert len(first | second) <= 2


def test_an_exception_comes_back_with_its_traceback(executor):
    future = executor.submit(work.fail, "odd")
    with pytest.raises(ValueError, match="odd") as raised:
        future.result(PATIENCE)
    assert "in fail\n    raise ValueError(value)" in str(raised.value.__cause__)
    assert future.exception() is raised.value


def test_an_exit_in_a_task_is_its_exception(executor):
    for what in (SystemExit, KeyboardInterrupt):
        with pytest.raises(what):
            executor.submit(raise_it, what).result(PATIENCE)
    assert executor.submit(work.same, 1).result(PATIENCE) == 1


def raise_it(what):
    raise what


@pytest.mark.parametrize("size", [0, 1, 32 * 1024 - 100, 32 * 1024, 40_000, 256 * 1024, 10_000_000])
def test_objects_of_any_size_go_there_and_back(executor, size):
    value = os.urandom(size)
    assert executor.submit(work.same, value).result(PATIENCE) == value
    assert executor.submit(bytearray, value).result(PATIENCE) == value


def test_many_large_objects_at_once_go_there_and_back(executor):
    values = [bytes([n]) * 100_000 for n in range(200)]
    assert list(executor.map(work.same, values, timeout=PATIENCE)) == values


@pytest.mark.parametrize("length", [10, 100_000])
def test_arrays_may_be_written_on_both_sides(executor, length):
    array = np.arange(length)
    result = executor.submit(work.change, array).result(PATIENCE)
    np.testing.assert_array_equal(result, np.arange(length) + 1)
    np.testing.assert_array_equal(array, np.arange(length))
    result += 1


def test_a_socket_may_be_an_argument(executor):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        executor.submit(socket.socket.sendall, theirs, b"hello").result(PATIENCE)
        assert ours.recv(10) == b"hello"
    resource_sharer.stop(PATIENCE)  # the thread that multiprocessing passes it on with


def test_the_initializer_runs_in_each_worker(context):
    with mk.CoreExecutor(2, context, work.remember, ("this",)) as executor:
        assert {executor.submit(work.recall).result(PATIENCE) for _ in range(20)} == {"this"}


def test_a_worker_is_replaced_after_its_tasks(context):
    if context.get_start_method() == "fork":
        pytest.skip("refused")
    with mk.CoreExecutor(2, context, max_tasks_per_child=3) as executor:
        pids = list(executor.map(work.pid, range(10), timeout=PATIENCE))
        assert max(pids.count(pid) for pid in pids) <= 3
        futures = [executor.submit(work.same, n) for n in range(5)]
        assert [future.result(PATIENCE) for future in futures] == list(range(5))


def test_several_threads_submit_at_once(executor):
    def submit(start):
        futures = [executor.submit(work.add, start, n) for n in range(200)]
        found[start] = [future.result(PATIENCE) for future in futures]

    found = {}
    threads = [threading.Thread(target=submit, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == {start: list(range(start, start + 200)) for start in range(4)}


def test_a_callback_may_submit(executor):
    second = concurrent.futures.Future()

    def go_on(first):
        executor.submit(work.add, first.result(), 1).add_done_callback(lambda done: second.set_result(done.result()))

    executor.submit(work.same, 1).add_done_callback(go_on)
    assert second.result(PATIENCE) == 2


def test_futures_go_with_wait_and_as_completed(executor, gate):
    held = executor.submit(work.wait_at_gate)
    quick = executor.submit(work.same, 1)
    done, others = concurrent.futures.wait([held, quick], PATIENCE, concurrent.futures.FIRST_COMPLETED)
    assert (done, others) == ({quick}, {held})
    gate.open()
    assert set(concurrent.futures.as_completed([held, quick], PATIENCE)) == {held, quick}


def test_what_was_not_sent_can_be_cancelled(executor, gate):
    held = [executor.submit(work.wait_at_gate) for _ in range(2)]
    waiting = [executor.submit(work.same, n) for n in range(10)]
    gate.wait_for(2)
    assert all(future.running() for future in held)
    assert not held[0].cancel()
    assert waiting[3].cancel()
    gate.open()
    done, _ = concurrent.futures.wait(waiting, PATIENCE)
    assert waiting[3] in done
    assert [future.result(PATIENCE) for future in waiting if not future.cancelled()] == [0, 1, 2, 4, 5, 6, 7, 8, 9]


# --- map


def test_map_is_the_builtin_one(context):
    with mk.CoreExecutor(2, context) as executor:
        assert list(executor.map(work.add, range(1000), itertools.count(5))) == [n + n + 5 for n in range(1000)]
        assert list(executor.map(pow, [2, 3], [5, 6])) == [32, 729]
        assert list(executor.map(work.same, [])) == []


@pytest.mark.parametrize("size", [1, 2, 7, 100, 1000])
def test_chunks_make_no_difference_to_results(executor, size):
    assert list(executor.map(work.add, range(100), range(100), chunksize=size)) == list(range(0, 200, 2))
    assert list(executor.map(str.upper, "abc", chunksize=size)) == ["A", "B", "C"]


def test_map_raises_what_a_call_raised_in_its_place(executor):
    for size in (1, 2):
        results = executor.map(work.odd_fails, [0, 2, 4, 5, 6], chunksize=size)
        assert next(results) == 0
        assert next(results) == 2
        with pytest.raises(ValueError, match="5") as raised:
            list(results)
        assert "in odd_fails" in str(raised.value.__cause__)
        assert list(results) == []


def test_an_argument_that_cannot_be_pickled_fails_in_its_place(executor):
    results = executor.map(work.same, [1, lambda: None, 3])
    assert next(results) == 1
    with pytest.raises(Exception, match="pickle"):
        next(results)


def test_map_takes_its_arguments_at_once(executor):
    taken = iter(range(100))
    results = executor.map(work.same, taken)
    assert list(taken) == []
    assert list(results) == list(range(100))


def test_map_with_a_buffer_takes_arguments_as_results_are_taken(executor):
    taken = []
    results = executor.map(work.same, (taken.append(n) or n for n in itertools.count()), buffersize=3)
    assert taken == [0, 1, 2]
    assert [next(results) for _ in range(50)] == list(range(50))
    assert len(taken) <= 53
    results.close()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"chunksize": 0}, ValueError), ({"buffersize": 0}, ValueError), ({"buffersize": "3"}, TypeError)],
)
def test_map_refuses_sizes_that_cannot_be(executor, arguments, error):
    with pytest.raises(error):
        executor.map(work.same, [1], **arguments)


def test_map_gives_up_at_its_time_out(executor, gate):
    results = executor.map(work.wait_at_gate, [1], timeout=0.01)
    with pytest.raises(TimeoutError):
        next(results)


def test_a_map_that_nobody_goes_on_with_is_dropped(fork, gate):
    """What no worker has then is not done."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(reading, "rb", 0) as notes, open(writing, "wb", 0):
        with mk.CoreExecutor(1, fork, work.remember, (gate.given,)) as executor:
            calls = itertools.chain([(work.same, 0), (work.wait_at_gate,)], [(work.tell, writing)] * 5000)
            results = executor.map(work.call, calls)
            assert next(results) == 0
            gate.wait_for(1)
            results.close()
            gate.open()
        assert len(notes.read(65536) or b"") < 5000


def test_a_callable_with_state_begins_anew_in_each_task(executor):
    assert list(executor.map(work.Counting(), range(5))) == [1] * 5
    assert list(executor.map(work.Counting(), range(4), chunksize=2)) == [1, 2, 1, 2]


def test_a_function_is_what_its_name_stands_for_in_the_worker(fork):
    """A worker remembers functions that it has found, and still sees that one was replaced."""
    with mk.CoreExecutor(1, fork) as executor:
        assert list(executor.map(work.same, [1, 2])) == [1, 2]
        executor.submit(work.replace_same).result(PATIENCE)
        assert list(executor.map(work.same, [1])) == [((1,), {})]
