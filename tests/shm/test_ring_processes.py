"""Rings between processes: passed on by fork, spawn and forkserver, claimed by one, and what its death means."""

from __future__ import annotations

import faulthandler
import itertools
import multiprocessing
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np  # noqa: TID253
import pytest

import multikernel as mk

from . import targets
from .children import LIMIT, Child, Words, open_descriptors

METHODS = ["fork", "spawn", "forkserver"]

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def join(process: multiprocessing.process.BaseProcess) -> None:
    process.join(LIMIT)
    assert process.exitcode == 0
    process.close()


# --- passing on


@pytest.mark.parametrize("method", METHODS)
def test_both_ends_work_in_a_child(method):
    there, back = mk.Ring("64K"), mk.Ring("64K")
    with there, back:
        tx, rx = there.sender(), back.receiver()
        child = multiprocessing.get_context(method).Process(target=targets.echo, args=(there.receiver(), back.sender()))
        child.start()
        for size in (0, 1, 100, 60_000, 7):
            tx.send(b"x" * size)
            assert rx.recv(timeout=LIMIT) == b"x" * size
        tx.close()
        with pytest.raises(mk.Closed):
            rx.recv(timeout=LIMIT)
        join(child)


@pytest.mark.parametrize("method", METHODS)
def test_a_whole_ring_works_in_a_child(method):
    with mk.Ring("64K") as there, mk.Ring("64K") as back, there.sender() as tx, back.receiver() as rx:
        child = multiprocessing.get_context(method).Process(target=targets.echo_ring, args=(there, back))
        child.start()
        tx.send(b"hello")
        assert rx.recv(timeout=LIMIT) == b"hello"
        tx.close()
        join(child)


@pytest.mark.parametrize("method", METHODS)
def test_a_ring_of_arrays_works_in_a_child(method):
    with (
        mk.Ring("64K", dtype="f4", shape=(2, 3)) as there,
        mk.Ring("64K", dtype="f4", shape=(2, 3)) as back,
        there.sender() as tx,
        back.receiver() as rx,
    ):
        child = multiprocessing.get_context(method).Process(
            target=targets.double, args=(there.receiver(), back.sender())
        )
        child.start()
        tx.send(np.arange(6, dtype="f4").reshape(2, 3))
        np.testing.assert_array_equal(rx.recv(timeout=LIMIT), 2 * np.arange(6, dtype="f4").reshape(2, 3))
        tx.close()
        join(child)


@pytest.mark.parametrize("method", METHODS)
def test_a_child_that_never_uses_its_end_leaves_it_to_others(method):
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        child = multiprocessing.get_context(method).Process(target=targets.drop, args=(tx,))
        child.start()
        join(child)
        tx.send(b"x")
        assert rx.recv() == b"x"


def test_an_end_passes_to_a_program_without_a_common_parent():
    program = (
        "import sys, multikernel as mk\n"
        "with mk.Sender.from_fds([int(fd) for fd in sys.argv[1:]]) as tx: tx.send(b'hello')\n"
    )
    with mk.Ring(4096) as ring, ring.receiver() as rx:
        fds = ring.sender().detach()
        process = subprocess.Popen([sys.executable, "-c", program, *map(str, fds)], pass_fds=fds)
        for fd in fds:
            os.close(fd)
        assert rx.recv(timeout=LIMIT) == b"hello"
        with pytest.raises(mk.Closed, match=f"pid {process.pid}"):
            rx.recv(timeout=LIMIT)
        assert process.wait(LIMIT) == 0


def test_a_program_started_beside_gets_none_of_it():
    """Whatever a ring opens is close-on-exec."""
    program = (
        "import os\n"
        "for number in os.listdir('/proc/self/fd'):\n"
        "    try: print(os.readlink(f'/proc/self/fd/{number}'))\n"
        "    except OSError: pass\n"
    )
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        unclaimed = mk.Ring(4096)
        tx.send(b"x")
        rx.fileno()
        ours = " ".join(open_descriptors())
        assert "lane:" in ours
        assert "eventpoll" in ours
        out = subprocess.run(
            [sys.executable, "-c", program], close_fds=False, capture_output=True, text=True, check=True, timeout=LIMIT
        ).stdout
        assert "lane:" not in out
        assert "eventpoll" not in out
        unclaimed.close()


# --- claiming


def test_whoever_uses_an_end_first_has_it():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:

        def use(words: Words) -> None:
            tx.send(b"mine")
            words.say("claimed")
            words.expect("go on")
            tx.send(b"still mine")
            tx.close()

        with Child(use) as child:
            child.expect("claimed")
            with pytest.raises(mk.NotOwner, match="claimed already"):
                tx.send(b"ours")
            child.say("go on")
            assert [rx.recv(timeout=LIMIT), rx.recv(timeout=LIMIT)] == [b"mine", b"still mine"]
            with pytest.raises(mk.Closed, match=f"the sender .*pid {child.pid}"):
                rx.recv(timeout=LIMIT)


def test_a_claim_wakes_who_waits_for_it():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:

        def wait(words: Words) -> None:
            words.say(rx.recv(timeout=LIMIT).decode())
            rx.close()

        with Child(wait) as child:
            child.sleeps()
            tx.send(b"hello")
            child.expect("hello")


def test_a_sender_fills_a_ring_that_nobody_has_claimed_and_then_waits():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:

        def fill(words: Words) -> None:
            count = 0
            while tx.try_send(b"x" * 100):
                count += 1
            words.say(count)
            tx.send(b"last", timeout=LIMIT)
            tx.close()

        with Child(fill) as child:
            count = child.hear()
            child.sleeps()
            assert rx.recv_many(count) == [b"x" * 100] * count
            assert rx.recv(timeout=LIMIT) == b"last"


def test_an_end_is_gone_when_the_last_process_drops_its_handle():
    with (
        mk.Ring(4096) as ring,
        ring.sender() as tx,
        ring.receiver() as rx,
        Child(lambda words: words.expect("end")) as child,
    ):
        assert rx.try_recv() is None
        tx.close()
        with pytest.raises(mk.Timeout):  # the child has one still
            rx.recv(timeout=0.05)
        child.say("end")
        with pytest.raises(mk.Closed, match="nobody holds"):
            rx.recv(timeout=LIMIT)


# --- a fork's copy


def every_use(tx: mk.Sender, rx: mk.Receiver) -> list[Callable[[], object]]:
    return [
        lambda: tx.send(b"stray"),
        lambda: tx.try_send(b"stray"),
        lambda: tx.send_many([b"stray"]),
        lambda: tx.try_send_many([b"stray"]),
        lambda: tx.reserve(5).__enter__(),
        tx.fileno,
        rx.recv,
        rx.try_recv,
        lambda: rx.recv_many(5),
        lambda: rx.try_recv_many(5),
        lambda: rx.recv_into(bytearray(50)),
        lambda: rx.peek().__enter__(),
        lambda: next(iter(rx)),
        rx.fileno,
    ]


def test_a_forked_copy_of_a_claimed_end_raises_and_never_writes():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        tx.send(b"one")
        tx.send(b"two")
        assert rx.recv() == b"one"

        def use(words: Words) -> None:
            for use in every_use(tx, rx):
                with pytest.raises(mk.NotOwner, match="forked from"):
                    use()
            assert not tx.closed
            tx.close()
            rx.close()
            ring.close()
            words.say("done")

        with Child(use) as child:
            child.expect("done")
            assert child.wait() == 0
        tx.send(b"three")
        assert rx.recv_many(9) == [b"two", b"three"]


def test_a_forked_copy_that_is_forgotten_closes_nothing_and_says_nothing():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        tx.send(b"one")
        assert rx.recv() == b"one"
        tx.fileno(), rx.fileno()
        pid = os.fork()
        if pid == 0:  # an ordinary exit: every object is destroyed, warnings are errors
            del tx, rx, ring
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        tx.send(b"two")
        assert rx.recv(timeout=LIMIT) == b"two"


@pytest.mark.parametrize("end", ["reserve", "peek"])
def test_leaving_the_block_of_a_view_in_a_fork_raises_and_does_not_fault(end):
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        tx.send(b"one")
        block = tx.reserve(3) if end == "reserve" else rx.peek()

        def leave(words: Words) -> None:
            with pytest.raises(mk.NotOwner, match="forked from"):
                block.__exit__(None, None, None)
            words.say("done")

        with block as view:
            with Child(leave) as child:
                child.expect("done")
                assert child.wait() == 0
            if end == "reserve":
                view[:] = b"two"
        assert rx.try_recv_many(9) == ([b"one", b"two"] if end == "reserve" else [])


def test_memory_of_a_view_faults_in_a_fork():
    """As documented: there is no second writer, not even by accident."""
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        with tx.reserve(3) as view:

            def scribble(words: Words) -> None:
                faulthandler.disable()  # the fault is what is due: nobody is to be alarmed by its traceback
                view[0] = 1

            with Child(scribble) as child:
                assert child.wait() == -signal.SIGSEGV
            view[:] = b"abc"
        assert rx.recv() == b"abc"


def test_multiprocessing_forks_leave_the_parent_its_ends():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        tx.send(b"one")
        with rx.peek() as view:
            child = multiprocessing.get_context("fork").Process(target=targets.drop, args=(None,))
            child.start()
            join(child)
            assert view == b"one"
        assert rx.try_recv() is None


# --- death


def numbered(tx: mk.Sender, batch: int) -> Callable[[Words], None]:
    """Sends 0, 1, 2, ... in messages of many sizes, for ever."""

    def send(words: Words) -> None:
        for number in itertools.count(step=batch):
            messages = [str(number + i).encode() + b"." * ((number + i) % 97) for i in range(batch)]
            if batch > 1:
                tx.send_many(messages)
            elif number % 2:
                tx.send(messages[0])
            else:
                with tx.reserve(len(messages[0])) as view:
                    view[:] = messages[0]

    return send


@pytest.mark.parametrize("batch", [1, 50])
def test_a_killed_sender_leaves_an_exact_prefix_and_then_closed(batch):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    for _ in range(40):
        with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx, Child(numbered(tx, batch)) as child:
            received = [rx.recv(timeout=LIMIT) for _ in range(chance.randrange(1, 400))]
            child.signal(signal.SIGKILL)  # a zombie is dead as well: it is reaped later
            with pytest.raises(mk.Closed, match=f"the sender .*pid {child.pid}"):  # noqa: PT012
                while True:
                    received.append(rx.recv(timeout=LIMIT))
            assert received == [str(i).encode() + b"." * (i % 97) for i in range(len(received))]


def test_a_sender_killed_inside_reserve_has_published_nothing():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:

        def reserve(words: Words) -> None:
            tx.send(b"complete")
            with tx.reserve(100) as view:
                view[:50] = b"x" * 50
                words.say("reserved")
                words.hear()

        with Child(reserve) as child:
            child.expect("reserved")
            child.kill()
            assert rx.recv(timeout=LIMIT) == b"complete"
            with pytest.raises(mk.Closed):
                rx.recv(timeout=LIMIT)


@pytest.mark.parametrize("wait", ["adaptive", "park", "spin"])
def test_a_waiting_receiver_learns_that_the_sender_was_killed(wait):
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver(wait=wait) as rx:

        def send(words: Words) -> None:
            tx.send(b"x")
            words.hear()

        with Child(send) as child:
            assert rx.recv(timeout=LIMIT) == b"x"
            with Child(lambda words: (words.expect("go"), child.signal(signal.SIGKILL))) as killer:
                killer.say("go")
                with pytest.raises(mk.Closed, match=f"pid {child.pid}"):
                    rx.recv()


@pytest.mark.parametrize("wait", ["adaptive", "park", "spin"])
def test_a_waiting_sender_learns_that_the_receiver_was_killed(wait):
    with mk.Ring(4096) as ring, ring.sender(wait=wait) as tx, ring.receiver() as rx:

        def receive(words: Words) -> None:
            words.say(rx.recv(timeout=LIMIT).decode())
            words.hear()

        with Child(receive) as child:
            tx.send(b"x")
            child.expect("x")
            with Child(lambda words: (words.expect("go"), child.signal(signal.SIGKILL))) as killer:
                killer.say("go")
                with pytest.raises(mk.Closed, match=f"the receiver .*pid {child.pid}"):  # noqa: PT012
                    while True:
                        tx.send(b"y" * 100)


def test_a_receiver_killed_while_peeking_took_nothing_and_the_sender_is_told():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:

        def peek(words: Words) -> None:
            with rx.peek(timeout=LIMIT) as view:
                words.say(bytes(view).decode())
                words.hear()

        with Child(peek) as child:
            tx.send(b"x" * 4000)
            child.expect("x" * 4000)
            child.kill()
            with pytest.raises(mk.Closed):
                tx.send(b"y" * 4000, timeout=LIMIT)
            assert tx.free == 4096 - 4016


def test_a_stopped_peer_is_a_timeout_and_no_more():
    with (
        mk.Ring(4096) as there,
        mk.Ring(4096) as back,
        there.sender() as tx,
        back.receiver() as rx,
        Child(lambda words: targets.echo(there.receiver(), back.sender())) as child,
    ):
        tx.send(b"x")
        assert rx.recv(timeout=LIMIT) == b"x"
        child.stop()
        sent = 0
        with pytest.raises(mk.Timeout):  # noqa: PT012
            while True:
                tx.send(b"%d" % sent * 50, timeout=0.1)
                sent += 1
        with pytest.raises(mk.Timeout):
            rx.recv(timeout=0.1)
        assert not tx.closed
        assert not rx.closed
        child.signal(signal.SIGCONT)
        assert [rx.recv(timeout=LIMIT) for _ in range(sent)] == [b"%d" % i * 50 for i in range(sent)]
        tx.close()
        assert child.wait() == 0


# --- signals


BLOCKED = {
    "recv": lambda tx, rx: rx.recv(),
    "recv_many": lambda tx, rx: rx.recv_many(5),
    "recv_into": lambda tx, rx: rx.recv_into(bytearray(5000)),
    "peek": lambda tx, rx: rx.peek().__enter__(),
    "next": lambda tx, rx: next(iter(rx)),
    "send": lambda tx, rx: tx.send(b"y" * 4000),
    "send_many": lambda tx, rx: tx.send_many([b"y" * 4000]),
    "reserve": lambda tx, rx: tx.reserve(4000).__enter__(),
}


@pytest.mark.parametrize("wait", ["adaptive", "park", "spin"])
@pytest.mark.parametrize("call", BLOCKED)
def test_ctrl_c_ends_a_blocked_call_at_once_and_leaves_nothing_behind(call, wait):
    with mk.Ring(4096) as ring, ring.sender(wait=wait) as tx, ring.receiver(wait=wait) as rx:
        sends = call in ("send", "send_many", "reserve")

        def block(words: Words) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if sends:
                tx.send(b"x" * 4000)
                assert rx.try_recv_many(1) != []
                tx.send(b"x" * 4000)
            else:
                tx.send(b"warm")
                assert rx.recv() == b"warm"
            assert not tx.closed
            assert not rx.closed  # and whoever asks has the other's pidfd from then on
            before = open_descriptors()
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012
                words.say("blocks")
                BLOCKED[call](tx, rx)
            assert open_descriptors() == before
            # Both ends go on as if nothing had been.
            if sends:
                assert rx.recv() == b"x" * 4000
            tx.send(b"after")
            assert rx.recv() == b"after"
            assert rx.try_recv() is None
            tx.close()
            rx.close()
            words.say("done")

        with Child(block) as child:
            child.expect("blocks")
            if wait != "spin":
                child.sleeps()
            child.signal(signal.SIGINT)
            child.expect("done")
            assert child.wait() == 0


class Tick(Exception):
    """What the handler of the alarm raises."""


def tick(*_: object) -> None:
    raise Tick


def alarm(seconds: float) -> None:
    """In a child only: the alarm of this process is that of pytest's time-outs."""
    signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, seconds)


@pytest.mark.parametrize("end", ["receiver", "sender"])
def test_a_signal_that_comes_while_the_wait_still_looks_is_not_slept_over(end):
    """It interrupts no system call then; the long sleep must not begin before its handler has run."""
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:

        def wait(words: Words) -> None:
            tx.send(b"x" * 4000)
            if end == "receiver":
                rx.recv()
            else:
                assert rx.recv() is not None
                tx.send(b"x" * 4000)
            for microseconds in range(1, 200):
                begin = time.monotonic()
                with pytest.raises(Tick):  # noqa: PT012
                    alarm(microseconds * 1e-6)
                    if end == "receiver":
                        rx.recv(timeout=LIMIT)
                    else:
                        tx.send(b"y" * 4000, timeout=LIMIT)
                assert time.monotonic() - begin < LIMIT / 2, f"slept over a signal after {microseconds} us"
            tx.close()
            rx.close()

        with Child(wait) as child:
            assert child.wait() == 0


def test_a_peer_that_rings_without_cause_keeps_nobody_from_its_signals():
    with mk.Ring(4096) as ring, ring.receiver() as rx:
        own, peer, bell = ring.sender().detach()
        os.close(own)
        os.close(peer)

        def wait(words: Words) -> None:
            begin = time.monotonic()
            with pytest.raises(Tick):  # noqa: PT012
                alarm(0.05)
                rx.recv(timeout=LIMIT)
            assert time.monotonic() - begin < LIMIT / 2, "slept over a signal"
            words.say("done")
            rx.close()

        with socket.socket(fileno=bell) as ringing, Child(wait) as child:
            while not select.select([child.sock], [], [], 0)[0]:
                try:
                    ringing.send(b"?" * 64, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    os.sched_yield()
            child.expect("done")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["recv", "peek", "recv_many"])
def test_an_end_survives_handlers_that_raise_at_any_point(how):
    """A message may be lost to an exception between its release and its delivery; none comes twice, nothing sticks."""
    count = 20_000
    with mk.Ring("64K") as ring, ring.sender() as tx, ring.receiver() as rx:

        def take() -> list[int]:
            if how == "recv":
                return [int(rx.recv(timeout=LIMIT))]
            if how == "recv_many":
                return [int(message) for message in rx.recv_many(5, timeout=LIMIT)]
            with rx.peek(timeout=LIMIT) as view:
                return [int(bytes(view))]

        def receive(words: Words) -> None:
            received: list[int] = []
            ticks = 0
            armed = False

            def tick_once(*_: object) -> None:
                nonlocal armed, ticks
                if armed:  # none comes while the last is being counted
                    armed = False
                    ticks += 1
                    raise Tick

            signal.signal(signal.SIGALRM, tick_once)
            rx.fileno()
            done = False
            while not done:
                try:
                    armed = True
                    try:
                        while True:
                            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1e-4))
                            received += take()
                    except mk.Closed:
                        armed = False
                        done = True
                except Tick:
                    pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert all(a < b for a, b in itertools.pairwise(received)), "twice, or out of order"
            assert count - 5 * ticks <= len(received) <= count
            assert ticks > 0
            rx.close()

        with Child(receive) as child:
            for number in range(count):
                tx.send(str(number).encode(), timeout=LIMIT)
            tx.close()
            assert child.wait() == 0
