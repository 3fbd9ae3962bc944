"""How rings and their ends close, whoever is at work with them, and that an end is one thread's at a time."""

from __future__ import annotations

import gc
import os
import threading
import time

import pytest

import multikernel as mk
from tests.eventually import until

from .children import LIMIT, Thread, open_descriptors

# --- closing


def test_what_was_sent_is_received_before_closed_is_raised(ends):
    tx, rx = ends
    tx.send(b"last")
    tx.close()
    assert rx.recv() == b"last"
    for call in (rx.recv, rx.try_recv, lambda: rx.recv_many(3), lambda: rx.recv_into(bytearray(9))):
        with pytest.raises(mk.Closed, match=f"the sender .*pid {os.getpid()}"):
            call()
    with pytest.raises(BrokenPipeError), rx.peek():
        pass
    assert rx.closed


def test_a_send_to_a_closed_receiver_raises_at_once(ends):
    tx, rx = ends
    assert rx.try_recv() is None
    rx.close()
    with pytest.raises(mk.Closed, match=f"the receiver .*pid {os.getpid()}"):
        tx.send(b"x")
    with pytest.raises(mk.Closed):
        tx.try_send(b"x")
    with pytest.raises(mk.Closed):
        tx.send_many([b"x"])
    assert tx.closed


def test_a_batch_for_a_receiver_that_has_closed_is_no_success(ends):
    tx, rx = ends
    tx.send(b"x")
    assert rx.recv() == b"x"
    rx.close()
    with pytest.raises(mk.Closed) as caught:
        tx.send_many([b"y"])
    assert caught.value.sent == 1


def test_a_reservation_for_a_receiver_that_has_closed_is_no_success(ends):
    tx, rx = ends
    tx.send(b"x")
    assert rx.recv() == b"x"
    with pytest.raises(mk.Closed), tx.reserve(1) as view:  # noqa: PT012
        view[:] = b"y"
        rx.close()


@pytest.mark.parametrize("waiting", ["recv", "send"])
def test_closing_wakes_the_other_side(ends, waiting):
    tx, rx = ends
    while tx.try_send(b"x" * 500):
        pass
    if waiting == "recv":
        while rx.try_recv() is not None:
            pass
        thread, other = Thread(lambda: rx.recv(timeout=LIMIT)), tx
    else:
        assert rx.try_recv() is not None
        tx.send(b"x" * 500)
        thread, other = Thread(lambda: tx.send(b"x" * 500, timeout=LIMIT)), rx
    thread.sleeps()
    other.close()
    with pytest.raises(mk.Closed):
        thread.value()


def test_a_closed_end_says_so_and_may_be_closed_again(ends):
    for end in ends:
        end.close()
        end.close()
        assert end.closed
    with pytest.raises(mk.Closed, match="this sender was closed here"):
        ends[0].send(b"x")
    with pytest.raises(mk.Closed, match="this receiver was closed here"):
        ends[1].recv()


def test_a_claimed_end_that_was_closed_says_so(ends):
    tx, rx = ends
    tx.send(b"x")
    assert rx.recv() == b"x"
    for end in ends:
        end.close()
    for call in (lambda: tx.send(b"x"), tx.fileno, lambda: tx.send_many([b"x"]), lambda: tx.free):
        with pytest.raises(mk.Closed, match="this sender was closed here"):
            call()
    for call in (rx.recv, rx.fileno, lambda: rx.recv_many(2), rx.try_recv):
        with pytest.raises(mk.Closed, match="this receiver was closed here"):
            call()


def test_closing_the_ring_closes_what_was_handed_out_and_what_was_not():
    before = open_descriptors()
    ring = mk.Ring(4096)
    tx = ring.sender()
    tx.send(b"x")
    ring.close()
    ring.close()
    assert tx.closed
    with pytest.raises(mk.NotOwner):
        ring.receiver()
    assert open_descriptors() == before


def test_an_end_that_nobody_holds_any_more_is_gone(ring):
    tx, rx = ring.sender(), ring.receiver()
    tx.send(b"x")
    rx.close()  # it was never claimed: it is only dropped
    with pytest.raises(mk.Closed, match="nobody holds"):  # noqa: PT012
        for _ in range(10_000):
            tx.send(b"x", timeout=LIMIT)
    tx.close()


def test_a_waiting_receiver_sees_the_last_handle_of_the_sender_go(ring):
    tx, rx = ring.sender(), ring.receiver()
    assert rx.try_recv() is None
    thread = Thread(lambda: rx.recv(timeout=LIMIT))
    thread.sleeps()
    tx.close()
    with pytest.raises(mk.Closed, match="nobody holds"):
        thread.value()
    rx.close()


def test_try_recv_notices_the_end_of_a_sender_without_waiting(ring):
    """Who looks now and then is told at the first look, not after many."""
    tx, rx = ring.sender(), ring.receiver()
    assert rx.try_recv() is None
    tx.close()
    until = time.monotonic() + 0.002  # the system is asked once in a millisecond at most
    while time.monotonic() < until:
        pass
    with pytest.raises(mk.Closed):
        rx.try_recv()
    rx.close()


def test_a_claimed_end_that_is_forgotten_warns_and_closes():
    before = open_descriptors()
    ring = mk.Ring(4096)
    tx, rx = ring.sender(), ring.receiver()
    tx.send(b"x")
    with pytest.warns(ResourceWarning, match="unclosed <Sender of records, 4K"):  # noqa: PT031
        del tx
        gc.collect()
    assert rx.recv() == b"x"
    with pytest.raises(mk.Closed):
        rx.recv(timeout=LIMIT)
    rx.close()
    del ring, rx
    assert open_descriptors() == before


def test_an_end_that_was_never_used_is_dropped_without_a_word():
    before = open_descriptors()
    ring = mk.Ring(4096)
    ring.sender()
    ring.receiver()
    del ring
    gc.collect()
    assert open_descriptors() == before


# --- one thread at a time


def test_a_second_thread_is_told_that_the_end_is_in_use(ends):
    tx, rx = ends
    thread = Thread(lambda: rx.recv(timeout=LIMIT))
    until(thread.polls)  # before its long sleep it leaves the end once, to look for signals
    for call in (rx.recv, rx.try_recv, rx.close, rx.fileno, lambda: rx.recv_many(4)):
        with pytest.raises(mk.NotOwner, match="in use by another thread"):
            call()
    tx.send(b"x")
    assert thread.value() == b"x"
    rx.close()


def test_looking_at_an_end_takes_no_wake_up_from_the_thread_that_waits(ends):
    """`closed` and `capacity` may be asked from anywhere."""
    tx, rx = ends
    for number in range(50):
        thread = Thread(lambda: rx.recv(timeout=LIMIT))
        thread.sleeps()
        until(thread.polls)
        tx.send(b"%d" % number)
        for _ in range(20):
            assert not rx.closed
            assert rx.capacity == 4096
        assert thread.value() == b"%d" % number


def test_two_threads_that_claim_at_once_get_one_end():
    for _ in range(100):
        with mk.Ring(4096) as ring:
            tx, rx = ring.sender(), ring.receiver()
            barrier = threading.Barrier(2)

            def use(tx=tx, barrier=barrier):
                barrier.wait()
                tx.send(b"x")

            threads = [Thread(use), Thread(use)]
            errors = []
            for thread in threads:
                try:
                    thread.value()
                except mk.NotOwner as error:
                    errors.append(error)
            assert len(rx.recv_many(5)) == 2 - len(errors) >= 1


def test_a_close_beside_calls_of_another_thread_never_reads_freed_memory():
    for _ in range(200):
        ring = mk.Ring(4096)
        tx, rx = ring.sender(), ring.receiver()
        tx.send(b"x")
        assert rx.recv() == b"x"
        begun = threading.Event()

        def poll(rx=rx, begun=begun):
            while True:
                begun.set()
                try:
                    rx.try_recv()
                except mk.NotOwner:
                    continue
                except mk.Closed:
                    return

        thread = Thread(poll)
        begun.wait()
        while not rx.closed:
            try:
                rx.close()
            except mk.NotOwner:
                continue
        thread.value()
        ring.close()
