"""`CoreExecutor` when things go wrong: dead workers, and objects that cannot be pickled or unpickled.

After CPython's Lib/test/test_concurrent_futures/test_deadlock.py: nobody may wait for ever, whatever happens where.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

import multikernel as mk
from tests.eventually import PATIENCE
from tests.shm.children import Child, open_descriptors

from . import work

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def assert_broken(executor, futures, match):
    """All pending futures fail, and so does whatever comes after; the rest of what was done stays."""
    for future in futures:
        with pytest.raises(BrokenProcessPool, match=match):
            future.result(PATIENCE)
    with pytest.raises(BrokenProcessPool, match=match):
        executor.submit(work.same, 1)
    with pytest.raises(BrokenProcessPool, match=match):
        executor.map(work.same, [1])


def assert_breaks(executor):
    """A worker was killed a moment ago: until the pool has seen it, tasks are done."""
    deadline = time.monotonic() + PATIENCE
    with pytest.raises(BrokenProcessPool, match="SIGKILL"):
        submit_until(executor, deadline)


def submit_until(executor, deadline):
    while time.monotonic() < deadline:
        assert executor.submit(work.same, 1).result(PATIENCE) == 1


# --- dead workers


def test_a_worker_that_is_killed_breaks_the_pool(context, gate):
    with mk.CoreExecutor(2, context, work.remember, (gate.given,)) as executor:
        done = executor.submit(work.same, 1)
        assert done.result(PATIENCE) == 1
        victim = executor.submit(work.pid).result(PATIENCE)
        futures = [executor.submit(work.wait_at_gate) for _ in range(20)]
        results = executor.map(work.wait_at_gate, range(20))
        os.kill(victim, signal.SIGKILL)
        assert_broken(executor, futures, f"pid {victim}, cpu [0-9]+.* was ended by SIGKILL")
        with pytest.raises(BrokenProcessPool):
            next(results)
        assert done.result() == 1


@pytest.mark.parametrize("turn", range(5))
def test_a_worker_that_is_killed_under_load_breaks_the_pool(fork, turn):
    """Each future has the right result or the error, and what came before that is all there."""
    with mk.CoreExecutor(2, fork) as executor:
        victim = executor.submit(work.pid).result(PATIENCE)
        results = executor.map(work.same, range(50_000))
        found = [next(results) for _ in range(1 + 1000 * turn)]
        os.kill(victim, signal.SIGKILL)
        try:
            found.extend(results)
        except BrokenProcessPool:
            pass  # not if all had been done when it was killed
        assert found == list(range(len(found)))
        assert_breaks(executor)


@pytest.mark.parametrize(
    ("task", "match"),
    [
        ((work.die,), "SIGKILL"),
        ((work.leave, 3), "exit status 3"),
        ((work.leave, 0), "exit status 0"),
        ((work.same, work.AtUnpickling("crash")), "SIGKILL"),
        ((work.same, work.AtUnpickling("leave")), "exit status 3"),
        ((work.make, work.AtPickling, "crash"), "SIGKILL"),
        ((work.make, work.AtPickling, "leave"), "exit status 3"),
    ],
)
def test_a_worker_that_ends_anywhere_in_a_task_breaks_the_pool(fork, task, match):
    with mk.CoreExecutor(2, fork) as executor:
        assert_broken(executor, [executor.submit(*task)], match)


def test_an_idle_worker_that_is_killed_breaks_the_pool(context):
    with mk.CoreExecutor(2, context) as executor:
        victim = executor.submit(work.pid).result(PATIENCE)
        os.kill(victim, signal.SIGKILL)
        assert_breaks(executor)


def test_an_initializer_that_fails_breaks_the_pool(context):
    with mk.CoreExecutor(2, context, work.fail, ("at the beginning",)) as executor:
        future = executor.submit(work.same, 1)
        assert_broken(executor, [future], "the initializer failed in the worker on cpu")
        assert "ValueError: at the beginning" in str(future.exception().__cause__)
    assert "broken" in repr(executor)


def test_workers_that_cannot_start_break_the_pool(tmp_path):
    """A program without `if __name__ == "__main__"`, whose workers try to have workers."""
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, multikernel as mk\n"
        "with mk.CoreExecutor(2, multiprocessing.get_context('spawn')) as executor:\n"
        "    print(repr(executor.submit(abs, -1).exception(20)))\n"
    )
    ran = subprocess.run([sys.executable, program], timeout=PATIENCE, capture_output=True, text=True, check=False)
    assert "BrokenProcessPool" in ran.stdout
    assert "ended by itself, with exit status 1" in ran.stdout


# --- pickling: only the task fails


@pytest.mark.parametrize(
    ("task", "error", "match"),
    [
        ((lambda: None,), Exception, "pickle"),
        ((work.same, lambda: None), Exception, "pickle"),
        ((work.same, work.AtPickling("error")), OverflowError, "error"),
        ((work.same, work.AtUnpickling("error")), OverflowError, "error"),
        ((work.same, work.AtUnpickling("exit")), SystemExit, "5"),
        ((work.unpicklable,), Exception, "pickle|local object"),
        ((work.make, work.AtPickling, "error"), OverflowError, "error"),
        ((work.make, work.AtPickling, "exit"), SystemExit, "5"),
        ((work.make, work.AtUnpickling, "error"), OverflowError, "error"),
        ((work.make, work.AtUnpickling, "exit"), SystemExit, "5"),
        ((work.raise_picky,), TypeError, "missing 1 required positional argument"),
        ((work.raise_unpicklable,), Exception, "pickle|local object"),
    ],
)
def test_what_cannot_be_pickled_or_unpickled_fails_alone(fork, task, error, match):
    with mk.CoreExecutor(1, fork) as executor:
        before = executor.submit(work.same, 1)
        future = executor.submit(*task)
        after = executor.submit(work.same, 2)
        with pytest.raises(error, match=match):
            future.result(PATIENCE)
        assert (before.result(PATIENCE), after.result(PATIENCE)) == (1, 2)


def test_an_exception_that_cannot_be_unpickled_still_says_where_it_was_raised(fork):
    with mk.CoreExecutor(1, fork) as executor:
        error = executor.submit(work.raise_picky).exception(PATIENCE)
        assert "in raise_picky" in str(error.__cause__)


# --- shortage


def test_workers_that_there_are_no_descriptors_for_leave_nothing_behind(fork):
    """But for a pipe, at times: multiprocessing forgets its first one where there is none for a second."""

    def run(words):
        executor = mk.CoreExecutor(2, fork)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        for room in range(100):
            before = open_descriptors()
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + room, most))
            failed = executor_fails(executor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            if not failed:
                break
            assert not [each for each in open_descriptors() - before if "pipe:" not in each]
        executor.shutdown()
        words.say(room)

    with Child(run) as child:
        assert 10 < child.hear() < 99
        assert child.wait() == 0


def executor_fails(executor):
    try:
        return executor.submit(work.same, 1).result(PATIENCE) != 1
    except OSError:
        return True


def test_what_failed_before_the_pool_broke_is_told_too(fork):
    """A large task that there is no descriptor for, just when the worker dies."""

    def run(words):
        soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        for _ in range(20):
            with mk.CoreExecutor(1, fork) as executor:
                pid = executor.submit(work.pid).result(PATIENCE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
                os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(BrokenProcessPool):
                    error = executor.submit(work.same, bytes(100_000)).exception(PATIENCE)
                    assert isinstance(error, (OSError, BrokenProcessPool))
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))

    with Child(run) as child:
        assert child.wait() == 0


def test_a_large_task_that_there_is_no_descriptor_for_fails_alone(fork):
    def run(words):
        soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with mk.CoreExecutor(1, fork) as executor:
            assert executor.submit(work.same, 1).result(PATIENCE) == 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))  # a new one would have a smaller number
            futures = [executor.submit(work.same, value) for value in (2, bytes(100_000), 3)]
            words.say([type(future.exception(PATIENCE)).__name__ for future in futures])
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
            words.say(len(executor.submit(work.same, bytes(100_000)).result(PATIENCE)))

    with Child(run) as child:
        child.expect(["NoneType", "OSError", "NoneType"])
        child.expect(100_000)
        assert child.wait() == 0
