"""The receiving ends of mailboxes and broadcasts can do what a ring's can. Each test is for all of them."""

from __future__ import annotations

import array
import os
import threading

import pytest

import multikernel as mk

CAPACITY = 4096


@pytest.fixture(params=["ring", "mailbox", "wait", "miss"])
def ends(request):
    """A sender, its receiver, and what is to be closed after the sender so that nobody can come any more."""
    if request.param == "ring":
        made = mk.Ring(CAPACITY)
    elif request.param == "mailbox":
        made = mk.Mailbox(CAPACITY)
    else:
        made = mk.Broadcast(CAPACITY, slow=request.param)
    with made, made.sender() as tx, made.receiver() as rx:
        assert rx.try_recv() is None  # both are claimed
        yield tx, rx, made


def test_a_view_shows_the_next_message_and_takes_it_at_the_end_of_its_block(ends):
    tx, rx, _ = ends
    tx.send_many([b"one", b"two"])
    with rx.peek() as view:
        assert bytes(view) == b"one"
        assert view.readonly
    assert rx.recv() == b"two"
    with pytest.raises(ValueError, match="released"):
        bytes(view)


def test_an_exception_in_the_block_takes_nothing(ends):
    tx, rx, _ = ends
    tx.send_many([b"one", b"two"])
    with pytest.raises(LookupError), rx.peek() as view:
        raise LookupError(bytes(view))
    with pytest.raises(LookupError), rx.peek_many(10):
        raise LookupError
    assert rx.recv_many(10) == [b"one", b"two"]


def test_an_array_that_outlives_the_block_keeps_the_message(ends):
    import numpy as np

    tx, rx, _ = ends
    tx.send_many([b"one", b"two"])
    with pytest.raises(BufferError, match="still alive"), rx.peek() as view:
        kept = np.frombuffer(view, dtype="u1")
    assert kept.tobytes() == b"one"
    with pytest.raises(mk.NotOwner, match="view"):
        rx.recv()
    with pytest.raises(mk.NotOwner):
        rx.close()
    del kept
    assert rx.recv_many(10) == [b"one", b"two"]


def test_while_a_view_is_open_nothing_else_is_received_and_the_view_stays(ends):
    tx, rx, _ = ends
    tx.send_many([b"one", b"two"])
    with rx.peek() as view:
        for call in (rx.recv, rx.try_recv, lambda: rx.recv_many(5), lambda: next(rx), lambda: len(rx)):
            with pytest.raises(mk.NotOwner):
                call()
        with pytest.raises(mk.NotOwner), rx.peek():
            pass
        assert bytes(view) == b"one"
    assert rx.recv() == b"two"


def test_several_views_are_in_order_and_go_round_the_end_of_the_ring(ends):
    tx, rx, _ = ends
    number = 0
    for _ in range(3 * CAPACITY // 1000):
        sent = [bytes([number + i]) * 250 for i in range(4)]
        tx.send_many(sent)
        with rx.peek_many(3) as views:
            assert list(map(bytes, views)) == sent[:3]
        with rx.peek_many(64) as views:
            assert list(map(bytes, views)) == sent[3:]
        number += 4


def test_receiving_into_a_buffer_copies_what_fits_and_leaves_what_does_not(ends):
    tx, rx, _ = ends
    tx.send_many([b"long enough", b""])
    with pytest.raises(ValueError, match="11 bytes, the buffer 3"):
        rx.recv_into(bytearray(3))
    with pytest.raises(ValueError, match="writable"):
        rx.recv_into(bytes(20))
    room = array.array("I", [0] * 5)
    assert rx.recv_into(room) == 11
    assert room.tobytes() == b"long enough".ljust(20, b"\0")
    assert rx.recv_into(bytearray(1)) == 0
    with pytest.raises(TimeoutError):
        rx.recv_into(room, timeout=0)


def test_its_length_is_what_waits_and_it_is_true_without(ends):
    tx, rx, _ = ends
    assert len(rx) == 0
    assert rx
    tx.send_many([b"%d" % number for number in range(50)])
    assert len(rx) == 50
    rx.recv()
    assert len(rx) == 49
    while len(rx) > 1:
        rx.recv_many(len(rx) - 1)
    with rx.peek():
        pass
    assert len(rx) == 0


def test_its_capacity_is_what_was_asked_for(ends):
    _, rx, made = ends
    assert rx.capacity == made.capacity == CAPACITY


def test_it_is_closed_when_nobody_is_left_who_could_send(ends):
    tx, rx, made = ends
    tx.send(b"unread")
    assert not rx.closed
    tx.close()
    if isinstance(made, mk.Mailbox):
        made.close()
    assert rx.closed
    assert rx.recv() == b"unread"
    with pytest.raises(mk.Closed):
        rx.peek().__enter__()
    assert list(rx) == []


def test_one_that_was_closed_here_says_so_to_whoever_iterates(ends):
    _, rx, _ = ends
    rx.close()
    assert rx.closed
    for call in (lambda: next(rx), lambda: list(rx), lambda: len(rx), lambda: rx.peek().__enter__()):
        with pytest.raises(mk.Closed, match="closed here"):
            call()


def test_nothing_to_see_in_time_is_a_timeout(ends):
    _, rx, _ = ends
    for call in (rx.peek, lambda timeout: rx.peek_many(3, timeout)):
        with pytest.raises(TimeoutError), call(timeout=0.001):
            pass
    with pytest.raises(ValueError, match="least is 1"):
        rx.peek_many(0)
    with pytest.raises(ValueError, match="least is 1"):
        rx.recv_many(0)


def test_a_view_may_end_in_another_thread(ends):
    tx, rx, _ = ends
    tx.send_many([b"one", b"two"])
    block = rx.peek()
    block.__enter__()
    ending = threading.Thread(target=block.__exit__, args=(None, None, None))
    ending.start()
    ending.join()
    assert rx.recv() == b"two"


def test_a_forked_copy_sees_nothing(ends):
    tx, rx, _ = ends
    tx.send(b"one")
    pid = os.fork()
    if not pid:
        code = 1
        try:
            rx.peek().__enter__()
        except mk.NotOwner:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert rx.recv() == b"one"


def test_a_wrong_time_is_an_error_though_a_message_is_there(ends):
    tx, rx, _ = ends
    tx.send(b"one")
    for call in (rx.recv, lambda timeout: rx.recv_many(5, timeout)):
        with pytest.raises(TypeError):
            call(timeout="soon")
        with pytest.raises(ValueError, match="nan"):
            call(timeout=float("nan"))
    assert rx.recv(timeout=1) == b"one"


def test_what_a_mailbox_shows_is_of_one_sender():
    with mk.Mailbox(CAPACITY) as box, box.sender() as a, box.sender() as b, box.receiver() as rx:
        a.send_many([b"a1", b"a2"])
        b.send_many([b"b1", b"b2", b"b3"])
        shown = []
        while len(rx):
            with rx.peek_many(100) as views:
                shown.append(list(map(bytes, views)))
        assert sorted(shown) == [[b"a1", b"a2"], [b"b1", b"b2", b"b3"]]


def test_a_mailbox_counts_what_came_before_its_sender_was_taken_in():
    with mk.Mailbox(CAPACITY) as box, box.receiver() as rx:
        assert rx.try_recv() is None
        with box.sender() as late:
            late.send_many([b"one", b"two"])
            assert len(rx) == 2
            assert rx.recv_many_from(5) == [(late.number, b"one"), (late.number, b"two")]


def test_new_senders_are_taken_in_though_one_never_stops():
    """Beside a lane that always has something, news of others is asked for once in a while."""
    with mk.Mailbox("64K") as box, box.sender() as busy, box.receiver() as rx:
        busy.send(b"busy")
        assert rx.recv() == b"busy"
        with box.sender() as late:
            late.send(b"late")
            received = b""
            while received != b"late":  # pytest's time-out is the ceiling
                busy.try_send(b"busy")
                busy.try_send(b"busy")
                received = rx.recv()


def test_what_was_not_taken_was_not_missed():
    """Missed is what lies before the message that was received last, not before one that was only looked at."""
    with mk.Broadcast(CAPACITY, slow="miss") as cast, cast.sender() as tx, cast.receiver() as rx:
        tx.send_many([b"%04d" % number + bytes(100) for number in range(200)])
        with pytest.raises(ValueError, match="the buffer 1"):
            rx.recv_into(bytearray(1))
        assert rx.missed == 0
        first = int(rx.recv()[:4])
        assert rx.missed == first > 0
