"""`mk.wait`: many receivers and descriptors at once."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import multikernel as mk
from multikernel.shm import wait as module
from tests.eventually import until

from .children import LIMIT, Child, Words, open_descriptors

COUNTS = [1, 2, 3, 64]  # one and two lanes sleep on bells first, more on sockets


class Lanes:
    """Rings of which both ends are here until a child takes one."""

    def __init__(self, stack: ExitStack, count: int) -> None:
        rings = [stack.enter_context(mk.Ring(4096)) for _ in range(count)]
        self.txs = [stack.enter_context(ring.sender()) for ring in rings]
        self.rxs = [stack.enter_context(ring.receiver()) for ring in rings]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.mark.parametrize("count", COUNTS)
def test_those_that_have_something_come_back_in_the_order_they_were_given(stack, count):
    lanes = Lanes(stack, count)
    backwards = lanes.rxs[::-1]
    for given in (lanes.rxs, backwards, tuple(lanes.rxs), iter(lanes.rxs)):
        assert mk.wait(given, timeout=0) == []
    for number, tx in enumerate(lanes.txs):
        if number % 3 == 0:
            tx.send(b"x")
    expected = lanes.rxs[::3]
    for _ in range(3):
        assert mk.wait(lanes.rxs) == expected
        assert mk.wait(backwards) == expected[::-1]
        assert mk.wait([*lanes.rxs, *lanes.rxs], timeout=LIMIT) == expected * 2
    for rx in expected:
        assert rx.recv() == b"x"
    assert mk.wait(lanes.rxs, timeout=0) == []


def test_elements_count_as_messages_do():
    import numpy as np

    with mk.Ring(4096, dtype="i4") as ring, ring.sender() as tx, ring.receiver() as rx:
        assert mk.wait([rx], timeout=0) == []
        tx.send_many(np.array([1, 2], "i4"))
        assert mk.wait([rx]) == [rx]


@pytest.mark.parametrize("beside", [False, True], ids=["lanes", "with a descriptor"])
@pytest.mark.parametrize("count", COUNTS)
def test_nothing_in_time_is_an_empty_list_and_not_before_the_time(stack, pipe, count, beside):
    lanes = Lanes(stack, count)
    objects = [*lanes.rxs, *([pipe[0]] if beside else [])]
    for timeout in (0, 0.001, 0.02, 0.02):
        begin = time.monotonic()
        assert mk.wait(objects, timeout) == []
        assert time.monotonic() - begin >= timeout
    assert mk.wait([], timeout=0.01) == []
    assert mk.wait(pipe[:1], timeout=0.01) == []
    with pytest.raises(ValueError, match="nothing to wait for"):
        mk.wait([])


@pytest.mark.parametrize("beside", [False, True], ids=["lanes", "with a descriptor"])
@pytest.mark.parametrize("count", COUNTS)
def test_each_message_of_another_process_wakes_the_wait(stack, pipe, count, beside):
    """It comes while the wait looks, at the bounded sleep, or when that has become one without a limit."""
    lanes = Lanes(stack, count)
    objects = [*lanes.rxs, *([pipe[0]] if beside else [])]
    rounds = 60

    def send(words: Words) -> None:
        for number in range(rounds):
            if number % 5 == 4:
                wait_until_asleep(words.hear())
            else:
                words.hear()
            lanes.txs[number * 7 % count].send(b"%d" % number)
        words.hear()
        for tx in lanes.txs:
            tx.close()

    with Child(send) as child:
        for number in range(rounds):
            child.say(os.getpid())
            (rx,) = mk.wait(objects, timeout=LIMIT)
            assert rx is lanes.rxs[number * 7 % count]
            assert rx.recv() == b"%d" % number
        child.say("done")
        assert child.wait() == 0
        claimed = {number * 7 % count for number in range(rounds)}
        until(lambda: len(mk.wait(lanes.rxs, timeout=0)) == len(claimed))  # and that their senders are gone


def wait_until_asleep(pid: int) -> None:
    """Until the process has slept for longer than the bounded first sleep lasts (10 ms)."""
    last, since = "", time.monotonic()

    def sleeps_on() -> bool:
        nonlocal last, since
        status = Path(f"/proc/{pid}/status").read_text()
        switches = status.partition("\nvoluntary_ctxt_switches:")[2]
        if switches != last or "\nState:\tS" not in status:
            last, since = switches, time.monotonic()
        return time.monotonic() - since > 0.04

    until(sleeps_on)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("how", ["close", "death"])
def test_the_end_of_a_sender_is_something(stack, count, how):
    lanes = Lanes(stack, count)

    def end(words: Words) -> None:
        lanes.txs[count // 2].send(b"x")
        words.hear()
        lanes.txs[count // 2].close()
        words.hear()

    with Child(end) as child:
        rx = lanes.rxs[count // 2]
        assert mk.wait(lanes.rxs, timeout=LIMIT) == [rx]
        assert rx.recv() == b"x"
        child.say("close") if how == "close" else child.kill()
        assert mk.wait(lanes.rxs, timeout=LIMIT) == [rx]
        with pytest.raises(mk.Closed, match=f"pid {child.pid}"):
            rx.recv()


def test_an_unclaimed_receiver_is_claimed(stack):
    lanes = Lanes(stack, 2)
    assert mk.wait(lanes.rxs, timeout=0) == []
    with pytest.raises(mk.NotOwner, match="claimed by this process"):
        lanes.rxs[0].detach()


def test_a_sender_is_ready_while_there_is_the_room_that_it_lacked(stack):
    lanes = Lanes(stack, 2)
    tx, rx = lanes.txs[0], lanes.rxs[0]
    while tx.try_send(b"x" * 100):
        pass
    assert mk.wait([tx, lanes.rxs[1]], timeout=0) == []
    rx.recv()
    assert mk.wait([tx, lanes.rxs[1]], timeout=LIMIT) == [tx]


# --- descriptors


def test_descriptors_of_every_kind_are_waited_for_beside_receivers(stack, pipe, tmp_path):
    lanes = Lanes(stack, 3)
    here, there = (stack.enter_context(each) for each in socket.socketpair())
    file = stack.enter_context((tmp_path / "file").open("w+"))
    objects = [pipe[0], lanes.rxs[0], here, lanes.rxs[1], lanes.rxs[2]]
    assert mk.wait(objects, timeout=0) == []
    assert mk.wait([*objects, file]) == [file]  # always, as in select
    assert mk.wait([file]) == [file]
    os.write(pipe[1], b"x")
    assert mk.wait(objects, timeout=LIMIT) == [pipe[0]]
    there.send(b"x")
    assert mk.wait(objects, timeout=LIMIT) == [pipe[0], here]
    assert mk.wait([here, *pipe[:1]]) == [here, pipe[0]]
    there.close()
    assert here.recv(9) == b"x"
    assert os.read(pipe[0], 9) == b"x"
    assert mk.wait(objects, timeout=LIMIT) == [here]  # end of file


def test_a_descriptor_that_becomes_readable_wakes_the_wait(stack, pipe):
    lanes = Lanes(stack, 2)
    assert mk.wait([*lanes.rxs, pipe[0]], timeout=0) == []
    parent = os.getpid()

    def write(words: Words) -> None:
        wait_until_asleep(parent)
        os.write(pipe[1], b"x")

    with Child(write) as child:
        assert mk.wait([*lanes.rxs, pipe[0]], timeout=LIMIT) == [pipe[0]]
        assert child.wait() == 0


def test_a_busy_receiver_hides_no_descriptor(stack, pipe):
    lanes = Lanes(stack, 2)
    objects = [lanes.rxs[0], pipe[0]]
    lanes.txs[0].send(b"x")
    assert mk.wait(objects) == [lanes.rxs[0]]
    os.write(pipe[1], b"x")
    until(lambda: mk.wait(objects) == objects)


def test_a_descriptor_that_was_closed_and_is_another_file_now_is_not_missed(stack):
    """Under the same number: an epoll that still had the old one would never speak again."""
    lanes = Lanes(stack, 2)
    old = os.pipe()
    assert mk.wait([*lanes.rxs, old[0]], timeout=0) == []
    assert mk.wait([*lanes.rxs, old[0]], timeout=0.001) == []
    new = os.pipe()
    os.dup2(new[0], old[0])
    try:
        os.write(new[1], b"x")
        assert mk.wait([*lanes.rxs, old[0]], timeout=LIMIT) == [old[0]]
    finally:
        for fd in (*old, *new):
            os.close(fd)


def test_what_cannot_be_waited_for_is_refused(stack):
    lanes = Lanes(stack, 1)
    one, other = os.pipe()
    os.close(one)
    os.close(other)
    for beside in ([], lanes.rxs):
        with pytest.raises(OSError, match=f"descriptor {one}, which is not open"):
            mk.wait([*beside, one])
        with pytest.raises(TypeError, match="not str"):
            mk.wait([*beside, "x"])
        with pytest.raises(ValueError, match="no open descriptor"):
            mk.wait([*beside, -1])
    with pytest.raises(ValueError, match="nan"):
        mk.wait(lanes.rxs, timeout=float("nan"))


# --- whose they are


def test_a_receiver_that_was_closed_here_raises_closed(stack):
    lanes = Lanes(stack, 3)
    assert mk.wait(lanes.rxs, timeout=0.001) == []
    lanes.rxs[1].close()
    with pytest.raises(mk.Closed, match="closed here"):
        mk.wait(lanes.rxs)
    assert mk.wait(lanes.rxs[::2], timeout=0.001) == []


@pytest.mark.parametrize("count", [1, 3])
def test_a_receiver_that_another_thread_waits_for_is_not_ours(stack, count):
    lanes = Lanes(stack, count)
    assert mk.wait(lanes.rxs, timeout=0) == []
    found: list[list[mk.Receiver]] = []
    thread = threading.Thread(target=lambda: found.append(mk.wait(lanes.rxs, timeout=LIMIT)))
    thread.start()
    try:

        def is_taken() -> bool:
            try:
                mk.wait(lanes.rxs, timeout=0)
            except mk.NotOwner:
                return True
            return False

        until(is_taken)
        with pytest.raises(mk.NotOwner):
            mk.wait(lanes.rxs[-1:])
        with pytest.raises(mk.NotOwner):
            lanes.rxs[0].close()
    finally:
        lanes.txs[0].send(b"x")
        thread.join()
    assert found == [lanes.rxs[:1]]
    assert mk.wait(lanes.rxs) == lanes.rxs[:1]


def test_a_forked_copy_is_not_ours(stack):
    lanes = Lanes(stack, 3)
    assert mk.wait(lanes.rxs, timeout=0.001) == []

    def use(words: Words) -> None:
        with pytest.raises(mk.NotOwner):
            mk.wait(lanes.rxs)

    with Child(use) as child:
        assert child.wait() == 0
    lanes.txs[0].send(b"x")
    assert mk.wait(lanes.rxs, timeout=LIMIT) == lanes.rxs[:1]


# --- what is kept


def test_nothing_is_left_of_a_wait_when_one_of_its_receivers_is_closed(stack):
    lanes = Lanes(stack, 3)
    for rx in lanes.rxs:
        assert rx.try_recv() is None
    before = open_descriptors()
    gc.disable()
    try:
        assert mk.wait(lanes.rxs, timeout=0.001) == []
        assert mk.wait(lanes.rxs, timeout=0.001) == []
        assert open_descriptors() > before
        lanes.rxs[0].close()
        assert open_descriptors() < before
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_wait_keeps_no_receiver_alive():
    with mk.Ring(4096) as ring, mk.Ring(4096) as other, other.receiver() as stays:
        rx = ring.receiver()
        before = open_descriptors()
        assert mk.wait([rx, stays], timeout=0.001) == []
        forgotten = weakref.ref(rx)
        del rx
        assert forgotten() is None
        assert not {each for each in open_descriptors() - before if "eventpoll" in each}


def test_no_more_groups_are_kept_than_documented(stack):
    lanes = Lanes(stack, module.KEPT + 10)
    for _ in range(3):
        for start in range(module.KEPT + 8):
            assert mk.wait(lanes.rxs[start : start + 2], timeout=0) == []
    assert len(module._kept) == module.KEPT
    for rx in lanes.rxs:
        rx.close()
    assert not module._kept


# --- signals


@pytest.mark.parametrize("beside", [False, True], ids=["lanes", "with a descriptor"])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_ctrl_c_ends_the_wait_at_once_and_all_of_it_can_be_used_again(stack, pipe, count, beside):
    if not count and not beside:
        pytest.skip("nothing to wait for")
    lanes = Lanes(stack, count)
    objects = [*lanes.rxs, *([pipe[0]] if beside else [])]

    def block(words: Words) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        assert mk.wait(objects, timeout=0.001) == []
        before = open_descriptors()
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012
                words.say("waits")
                mk.wait(objects)
            assert {each for each in open_descriptors() - before if "eventpoll" not in each} == set()
        if count:
            lanes.txs[0].send(b"x")
            assert mk.wait(objects) == lanes.rxs[:1]
        words.say("done")
        for rx in lanes.rxs:
            rx.close()
        for tx in lanes.txs[:1]:
            tx.close()

    with Child(block) as child:
        for _ in range(3):
            child.expect("waits")
            child.sleeps()
            child.signal(signal.SIGINT)
        child.expect("done")
        assert child.wait() == 0


@pytest.mark.parametrize("count", [1, 3])
def test_a_signal_whose_handler_returns_leaves_the_deadline_where_it_was(stack, count):
    lanes = Lanes(stack, count)

    def wait(words: Words) -> None:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        for _ in range(3):
            assert mk.wait(lanes.rxs, timeout=0.05) == []
        signal.setitimer(signal.ITIMER_REAL, 0)
        for rx in lanes.rxs:
            rx.close()

    with Child(wait) as child:
        assert child.wait() == 0


# --- system calls

COUNTED = """
import os, sys, multikernel as mk
count, beside = int(sys.argv[1]), sys.argv[2] == "beside"
rings = [mk.Ring(4096) for _ in range(count)]
txs, rxs = [ring.sender() for ring in rings], [ring.receiver() for ring in rings]
readable, writable = os.pipe()
for rx in rxs:
    rx.try_recv()
for tx in txs[::5]:
    tx.send(b"x")
objects = rxs + [readable] if beside else rxs
for other in (rxs[::2], rxs[::-1]):
    mk.wait(other), mk.wait(other)
os.getsid(0)
for _ in range(300):
    assert mk.wait(objects, timeout=60) == rxs[::5]
os.getsid(0)
for each in rings + txs + rxs:
    each.close()
"""


@pytest.mark.parametrize("beside", [False, True], ids=["lanes", "with a descriptor"])
@pytest.mark.parametrize("count", COUNTS)
def test_when_a_receiver_has_something_no_system_call_is_made(tmp_path, count, beside):
    """Not the first time either. Beside a descriptor: one look a millisecond, whatever the number of waits."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed (scripts/debian-packages names it)")
    log = tmp_path / "strace"
    argv = [strace, "-o", str(log), "-r", sys.executable, "-c", COUNTED, str(count), "beside" if beside else ""]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT, check=False)
    if "ptrace" in done.stderr and "permitted" in done.stderr:
        pytest.skip(f"no process may be traced here: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
    first, last = (number for number, line in enumerate(lines) if line[1].startswith("getsid"))
    between = lines[first + 1 : last]
    took = sum(float(since) for since, _ in lines[first + 1 : last + 1])
    # The clock is not in every system's vDSO, and the interpreter takes memory when it likes.
    others = ("clock_gettime", "mmap", "munmap", "brk")
    calls = [call for _, call in between if not call.startswith(others)]
    if not beside:
        assert calls == []
        return
    looks = [call for call in calls if call.startswith(("ppoll", "poll"))]
    making = [call for call in calls if call.startswith("epoll_")]  # the second time these came together
    assert len(looks) <= took / 0.001 + 1
    assert len(making) <= 1 + 2 * count
    assert len(calls) == len(looks) + len(making)
