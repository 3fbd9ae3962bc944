"""How a `CoreExecutor` ends: shutdown, exit, Ctrl-C, a killed program, a fork."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool

import pytest

import multikernel as mk
from tests.eventually import PATIENCE
from tests.shm.children import Child

from . import work

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def ends(pid):
    """Wait until a process that may not be our child has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], PATIENCE)[0], f"process {pid} has not ended"
    finally:
        os.close(pidfd)


# --- shutdown


def test_shutdown_waits_for_what_there_is_to_do(context):
    executor = mk.CoreExecutor(2, context)
    futures = [executor.submit(work.same, n) for n in range(100)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures] == list(range(100))
    executor.shutdown()
    assert "shut down" in repr(executor)


def test_after_shutdown_nothing_is_taken(fork):
    for used in (False, True):
        executor = mk.CoreExecutor(2, fork)
        if used:
            executor.submit(work.same, 1).result(PATIENCE)
        executor.shutdown()
        for call in (executor.submit, executor.map):
            with pytest.raises(RuntimeError, match="after shutdown"):
                call(work.same, [1])


def test_shutdown_without_waiting_does_what_there_is_to_do(context):
    executor = mk.CoreExecutor(2, context)
    futures = [executor.submit(work.same, n) for n in range(100)]
    executor.shutdown(wait=False)
    assert [future.result(PATIENCE) for future in futures] == list(range(100))
    executor.shutdown()


def test_shutdown_cancels_what_no_worker_has(fork, gate):
    executor = mk.CoreExecutor(2, fork, work.remember, (gate.given,))
    held = [executor.submit(work.wait_at_gate) for _ in range(2)]
    waiting = [executor.submit(work.same, n) for n in range(20)]
    results = executor.map(work.same, range(20))
    executor.shutdown(wait=False, cancel_futures=True)
    for future in waiting:
        with pytest.raises(CancelledError):
            future.result(PATIENCE)
    with pytest.raises(CancelledError):
        next(results)
    gate.open()
    assert all(future.result(PATIENCE) for future in held)
    executor.shutdown()


def test_the_block_of_an_executor_waits(fork):
    with mk.CoreExecutor(2, fork) as executor:
        futures = [executor.submit(work.same, n) for n in range(100)]
    assert [future.result(0) for future in futures] == list(range(100))


def test_an_executor_that_is_dropped_does_what_there_is_to_do_and_ends(context):
    executor = mk.CoreExecutor(2, context)
    futures = [executor.submit(work.same, n) for n in range(100)]
    pid = executor.submit(work.pid).result(PATIENCE)
    del executor
    gc.collect()
    assert [future.result(PATIENCE) for future in futures] == list(range(100))
    ends(pid)
    for thread in threading.enumerate():
        if thread.name == "CoreExecutor":
            thread.join(PATIENCE)


@pytest.mark.parametrize(("way", "name"), [("terminate_workers", "SIGTERM"), ("kill_workers", "SIGKILL")])
def test_workers_can_be_ended_at_once(fork, way, name, gate):
    with mk.CoreExecutor(2, fork, work.remember, (gate.given,)) as executor:
        held = [executor.submit(work.wait_at_gate) for _ in range(10)]
        getattr(executor, way)()
        for future in held:
            with pytest.raises((BrokenProcessPool, CancelledError)):
                future.result(PATIENCE)
        assert name in str(held[0].exception())


def test_a_worker_that_does_not_hear_sigterm_is_killed(fork):
    def initialize():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    executor = mk.CoreExecutor(2, fork, initialize)
    pids = {executor.submit(work.pid).result(PATIENCE) for _ in range(50)}
    os.kill(pids.pop(), signal.SIGKILL)
    executor.shutdown()


# --- the end of the program

PROGRAM = """
import multiprocessing, os, sys, threading, time
import multikernel as mk
from tests.concurrent import work

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # in one piece: two threads speak

def finished(future):
    say("done", future.result())

if __name__ == "__main__":
    executor = mk.CoreExecutor(2, multiprocessing.get_context(sys.argv[1]))
    for n in range(3):
        executor.submit(work.same, n).add_done_callback(finished)
    {end}
"""


def run_program(tmp_path, method, end=""):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("{end}", end))
    return subprocess.Popen(
        [sys.executable, program, method],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        start_new_session=True,
    )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_program_that_ends_without_shutdown_has_all_done_first(tmp_path, method):
    with run_program(tmp_path, method) as program:
        out, err = program.communicate(timeout=PATIENCE)
        assert (sorted(out.splitlines()), err, program.returncode) == (["done 0", "done 1", "done 2"], "", 0)


KILLED = """
    import multiprocessing.connection
    reading, writing = multiprocessing.get_context(sys.argv[1]).Pipe(False)
    executor.submit(work.send_pid_and, getattr(work, "%s"), writing)
    say("busy", reading.recv())
    say("idle", {executor.submit(work.pid).result() for _ in range(5)}.pop())
    time.sleep(60)
"""


@pytest.mark.parametrize("task", ["spin_for_ever", "never_let_go"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_end_with_a_program_that_is_killed(tmp_path, method, task):
    """Whatever they are at: nothing, Python code, or one call in C that never gives up the interpreter lock."""
    with run_program(tmp_path, method, (KILLED % task).strip()) as program:
        said = [program.stdout.readline().split() for _ in range(5)]
        program.kill()
        program.communicate(timeout=PATIENCE)
        pids = [int(pid) for what, pid in said if what != "done"]
        assert len(set(pids)) == 2
        for pid in pids:
            ends(pid)


def test_a_forked_child_does_not_keep_the_workers_of_a_killed_program(fork):
    def run(words):
        executor = mk.CoreExecutor(1, fork)
        pid = executor.submit(work.pid).result(PATIENCE)
        executor.submit(work.spin, 60)
        child = os.fork()
        if child == 0:
            signal.pause()
        words.say([pid, child])
        signal.pause()

    with Child(run) as program:
        worker, child = program.hear()
        program.kill()
        ends(worker)
        os.kill(child, signal.SIGKILL)
        ends(child)


# --- Ctrl-C


def test_a_ctrl_c_interrupts_tasks_and_no_worker(fork):
    """As from a terminal: everybody gets it."""

    def run(words):
        os.setpgid(0, 0)
        reading, writing = os.pipe()
        with mk.CoreExecutor(2, fork) as executor:
            future = executor.submit(work.write_and_spin, writing)
            os.read(reading, 1)
            try:
                words.say("busy")
                future.result(PATIENCE)
            except KeyboardInterrupt:
                words.say("interrupted")
            words.say(type(future.exception(PATIENCE)).__name__)
            words.say(list(executor.map(work.same, range(100))) == list(range(100)))

    with Child(run) as program:
        program.expect("busy")
        os.killpg(program.pid, signal.SIGINT)
        program.expect("interrupted")
        program.expect("KeyboardInterrupt")
        program.expect(True)
        assert program.wait() == 0


class Interrupt(BaseException):
    """What a signal handler raises."""


class Alarm:
    """Raises Interrupt, once each time that it is set, after some tenths of a millisecond."""

    def __init__(self):
        self._is_set = False
        signal.signal(signal.SIGALRM, self._raise)

    def set(self, microseconds):
        self._is_set = True
        # And again: an exception that comes where Python ignores them (in a __del__) is lost.
        signal.setitimer(signal.ITIMER_REAL, microseconds / 1e6, 0.01)

    def clear(self):
        self._is_set = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _raise(self, _number, _frame):
        if self._is_set:
            raise Interrupt


@pytest.mark.stress
def test_interrupts_anywhere_in_submit_lose_nothing(fork):
    """Each future that `submit` has returned gets its result, and the executor ends."""

    def run(words):
        alarm = Alarm()
        futures = []
        with mk.CoreExecutor(2, fork) as executor:
            executor.submit(work.same, 0).result(PATIENCE)
            for turn in range(300):
                submit_until_interrupted(executor, futures, alarm, 100 + turn % 50 * 10)
            for value, future in futures:
                assert future.result(PATIENCE) == value
        words.say("all done")

    with Child(run) as program:
        program.expect("all done")
        assert program.wait() == 0


def submit_until_interrupted(executor, futures, alarm, microseconds):
    try:
        try:
            alarm.set(microseconds)
            while True:
                value = len(futures)
                futures.append((value, executor.submit(work.same, value)))
        finally:
            alarm.clear()
    except Interrupt:
        pass


# --- fork


def test_a_forked_copy_of_an_executor_refuses_and_ends_quietly(fork):
    with mk.CoreExecutor(2, fork) as executor:
        assert executor.submit(work.same, 1).result(PATIENCE) == 1

        def run(words):
            for call in (executor.submit, executor.map):
                try:
                    call(work.same, [1])
                except RuntimeError as error:
                    words.say(str(error))
            executor.shutdown()
            with mk.CoreExecutor(1, fork) as own:
                words.say(own.submit(work.same, 3).result(PATIENCE))

        with Child(run) as child:
            for _ in range(2):
                assert f"belongs to process {os.getpid()}" in child.hear()
            child.expect(3)
            assert child.wait() == 0
        assert executor.submit(work.same, 2).result(PATIENCE) == 2


def test_a_task_may_have_an_executor_of_its_own(context):
    with mk.CoreExecutor(1, context) as executor:
        assert executor.submit(work.nested, 5).result(PATIENCE) == [0, 1, 2, 3, 4]
