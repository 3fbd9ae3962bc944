"""How an end waits: policies, event loops, and that who is waited for can always wake it."""

from __future__ import annotations

import asyncio
import itertools
import random
import select
import signal
import time
from collections.abc import Iterator

import pytest

import multikernel as mk
from multikernel._core import ffi, lib
from multikernel.shm import waiting

from .children import LIMIT, Child, Words, state

POLICIES = ["adaptive", "spin", "park"]


@pytest.fixture
def ends() -> Iterator[tuple[mk.Sender, mk.Receiver]]:
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        yield tx, rx


def readable(*descriptors: int, timeout: float = 0) -> list[int]:
    return select.select(descriptors, [], [], timeout)[0]


def counters(rx: mk.Receiver):
    copy = ffi.new("struct mk_counters_copy *")
    assert lib.mk_py_read_counters(rx._lane.end, copy) == 0
    return copy


# --- policies


@pytest.mark.parametrize("tx_wait", POLICIES)
@pytest.mark.parametrize("rx_wait", POLICIES)
def test_every_pair_of_policies_exchanges_messages(tx_wait, rx_wait):
    """Small rings, so that both sides wait; far more messages than fit."""
    with (
        mk.Ring(4096) as there,
        mk.Ring(4096) as back,
        there.sender(wait=tx_wait) as tx,
        back.receiver(wait=rx_wait) as rx,
    ):

        def echo(words: Words) -> None:
            mine, yours = there.receiver(wait=rx_wait), back.sender(wait=tx_wait)
            with mine, yours:
                for message in mine:
                    yours.send(message)

        with Child(echo) as child:
            for number in range(300):
                tx.send(b"%d" % number, timeout=LIMIT)
                assert rx.recv(timeout=LIMIT) == b"%d" % number
            for start in range(0, 1000, 20):
                assert tx.send_many([b"%d" % i * 10 for i in range(start, start + 20)], timeout=LIMIT) == 20
                received: list[bytes] = []
                while len(received) < 20:
                    received += rx.recv_many(20, timeout=LIMIT)
                assert received == [b"%d" % i * 10 for i in range(start, start + 20)]
            tx.close()
            assert child.wait() == 0


def test_spin_never_sleeps_and_park_does_at_once():
    for policy in ("spin", "park"):
        with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver(wait=policy) as rx:
            tx.send(b"x")
            assert rx.recv() == b"x"
            with pytest.raises(mk.Timeout):
                rx.recv(timeout=0.02)
            assert (counters(rx).parks > 0) is (policy == "park")


def test_an_idle_end_is_never_woken():
    """No time slices: once it sleeps it sleeps."""
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:

        def wait(words: Words) -> None:
            words.say(rx.recv(timeout=LIMIT).decode())
            words.say(rx.recv(timeout=LIMIT).decode())
            rx.close()

        with Child(wait) as child:
            tx.send(b"one")
            child.expect("one")
            child.sleeps()
            begin = voluntary_switches(child.pid)
            with pytest.raises(TimeoutError):  # nothing comes: only for the time  # noqa: PT012
                child.sock.settimeout(0.3)
                child.hear()
            child.sock.settimeout(LIMIT)
            assert state(child.pid) == "S"
            assert voluntary_switches(child.pid) - begin <= 3  # from the first, short sleep into the long one
            tx.send(b"two")
            child.expect("two")


def voluntary_switches(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches"))


@pytest.mark.slow
def test_no_wake_up_is_lost_whenever_the_message_comes():
    """The sender is ready at a random moment of the other's way from looking to sleeping."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    with mk.Ring(4096) as there, mk.Ring(4096) as back, there.sender() as tx, back.receiver() as rx:

        def echo(words: Words) -> None:
            with there.receiver() as mine, back.sender() as yours:
                for message in mine:
                    yours.send(message)

        with Child(echo) as child:
            for number in range(3000):
                until = time.perf_counter() + chance.choice((0, 5e-6, 70e-6, 200e-6, 2.1e-3)) * chance.random() * 2
                while time.perf_counter() < until:
                    pass
                tx.send(b"%d" % number)
                assert rx.recv(timeout=LIMIT) == b"%d" % number
            tx.close()
            assert child.wait() == 0


# --- deadlines


def test_deadlines_are_in_the_future_never_or_now():
    assert waiting.deadline(0) == waiting.deadline(-1.5) == waiting.AT_ONCE
    assert waiting.deadline(1.0) > time.monotonic_ns()
    for timeout in (None, float("inf"), 1e12):
        until = waiting.deadline(timeout)
        assert until < 0
        assert not waiting.is_over(until)
    assert waiting.deadline(None) != waiting.deadline(None)
    assert waiting.is_over(waiting.AT_ONCE)
    assert waiting.is_over(time.monotonic_ns())
    assert not waiting.is_over(waiting.deadline(100))


def test_a_signal_whose_handler_returns_leaves_the_deadline_where_it_was(ends):
    """The time that is left is waited for, not all of it again."""
    _, rx = ends

    def wait(words: Words) -> None:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        for _ in range(3):
            with pytest.raises(mk.Timeout):
                rx.recv(timeout=0.05)
        rx.close()

    with Child(wait) as child:
        assert child.wait() == 0


# --- event loops


def test_a_receivers_descriptor_is_readable_exactly_while_a_message_is_unread(ends):
    tx, rx = ends
    fd = rx.fileno()
    assert rx.fileno() == fd
    assert not readable(fd)
    for number in range(300):
        count = 1 + number % 3
        tx.send_many([b"%d" % number] * count)
        for _ in range(count):
            assert readable(fd)
            assert rx.recv() == b"%d" % number
        assert not readable(fd)


@pytest.mark.parametrize(
    "take",
    [
        lambda rx: rx.recv(),
        lambda rx: rx.try_recv(),
        lambda rx: rx.recv_many(9),
        lambda rx: rx.recv_into(bytearray(9)),
        lambda rx: None,
    ],
    ids=["recv", "try_recv", "recv_many", "recv_into", "nothing"],
)
def test_every_way_to_take_the_last_message_makes_it_unreadable(ends, take):
    tx, rx = ends
    fd = rx.fileno()
    tx.send(b"x")
    assert readable(fd)
    take(rx)
    while rx.try_recv() is not None:
        pass
    assert not readable(fd)
    tx.send(b"y")
    assert readable(fd)


def test_a_peek_that_takes_nothing_leaves_it_readable(ends):
    tx, rx = ends
    fd = rx.fileno()
    tx.send(b"x")
    with pytest.raises(KeyError), rx.peek():
        raise KeyError
    assert readable(fd)
    with rx.peek():
        pass
    assert not readable(fd)


def test_asking_whether_it_is_closed_does_not_make_an_unread_message_unreadable(ends):
    tx, rx = ends
    fd = rx.fileno()
    for _ in range(100):
        tx.send(b"x")
        assert not rx.closed
        assert readable(fd)
        assert rx.recv() == b"x"
        assert not rx.closed
        assert not readable(fd)


def test_the_end_of_the_sender_makes_it_readable(ends):
    tx, rx = ends
    fd = rx.fileno()
    tx.send(b"x")
    assert rx.recv() == b"x"
    assert not readable(fd)
    tx.close()
    assert readable(fd, timeout=LIMIT)
    with pytest.raises(mk.Closed):
        rx.recv()
    assert readable(fd)


def test_the_death_of_the_sender_makes_it_readable(ends):
    tx, rx = ends
    fd = rx.fileno()

    def send(words: Words) -> None:
        tx.send(b"x")
        words.hear()

    with Child(send) as child:
        assert readable(fd, timeout=LIMIT)
        assert rx.recv() == b"x"
        assert not readable(fd)
        child.signal(signal.SIGKILL)
        assert readable(fd, timeout=LIMIT)
        with pytest.raises(mk.Closed, match=f"pid {child.pid}"):
            rx.recv()


def test_a_senders_descriptor_is_readable_while_there_is_the_room_that_it_lacked(ends):
    tx, rx = ends
    fd = tx.fileno()
    assert readable(fd)
    while tx.try_send(b"x" * 100):
        pass
    assert not readable(fd)
    rx.recv()
    assert readable(fd, timeout=LIMIT)
    assert tx.try_send(b"x" * 100)
    assert not tx.try_send(b"x" * 100)
    assert not readable(fd)


@pytest.mark.parametrize("count", [1, 5])
def test_asyncio_sees_each_message_from_another_process(count):
    """add_reader on several rings, each message read when the loop says so, none by polling."""
    messages = 2000

    def send(words: Words) -> None:
        for number in range(messages):
            senders[number % count].send(b"%d" % number)
        for tx in senders:
            tx.close()

    rings = [mk.Ring(4096) for _ in range(count)]
    senders = [ring.sender() for ring in rings]
    receivers = [ring.receiver() for ring in rings]
    received: list[list[int]] = [[] for _ in rings]

    async def receive() -> None:
        loop = asyncio.get_running_loop()
        ended = [loop.create_future() for _ in rings]

        def ready(index: int) -> None:
            try:
                message = receivers[index].try_recv()
            except mk.Closed:
                loop.remove_reader(receivers[index].fileno())
                ended[index].set_result(None)
                return
            if message is not None:
                received[index].append(int(message))

        for index, rx in enumerate(receivers):
            loop.add_reader(rx.fileno(), ready, index)
        await asyncio.wait_for(asyncio.gather(*ended), LIMIT)

    with Child(send) as child:
        asyncio.run(receive())
        assert child.wait() == 0
    assert received == [list(range(index, messages, count)) for index in range(count)]
    for end in itertools.chain(rings, senders, receivers):
        end.close()


def test_an_event_loop_is_woken_for_a_claim_that_came_later():
    """The descriptor was asked for before the sender had ever been claimed: its death is noticed all the same."""
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        fd = rx.fileno()

        def claim(words: Words) -> None:
            tx.send(b"x")
            words.hear()

        with Child(claim) as child:
            assert readable(fd, timeout=LIMIT)
            assert rx.recv() == b"x"
            child.kill()
            assert readable(fd, timeout=LIMIT)
            with pytest.raises(mk.Closed):
                rx.recv()
