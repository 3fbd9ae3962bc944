"""A ring of records inside one process: what goes in comes out, and what cannot be is refused by name."""

from __future__ import annotations

import array
import itertools
import mmap
import os
import pickle
import resource
import socket

import numpy as np  # noqa: TID253
import pytest

import multikernel as mk

from .children import LIMIT, Thread, open_descriptors

# --- messages


def test_messages_come_out_as_they_went_in(ends):
    tx, rx = ends
    messages = [b"", b"a", b"b" * 7, b"c" * 8, b"d" * 1000]
    for message in messages:
        tx.send(message)
    assert [rx.recv() for _ in messages] == messages


def test_many_times_the_capacity_goes_through(ends):
    tx, rx = ends
    for number in range(5000):
        message = number.to_bytes(4, "little") * (number % 60)
        tx.send(message)
        assert rx.recv() == message


@pytest.mark.parametrize(
    "payload",
    [bytearray(b"abcd"), memoryview(b"abcd"), array.array("H", [0x6261, 0x6463]), np.frombuffer(b"abcd", "u1")],
    ids=lambda payload: type(payload).__name__,
)
def test_whatever_has_a_contiguous_buffer_is_a_message(ends, payload):
    tx, rx = ends
    tx.send(payload)
    assert tx.try_send(payload)
    assert tx.send_many([payload, b"x"]) == 2
    assert rx.recv_many(10) == [b"abcd", b"abcd", b"abcd", b"x"]


def test_a_mapped_file_is_a_message(ends):
    tx, rx = ends
    with mmap.mmap(-1, 100) as mapped:
        mapped[:5] = b"hello"
        tx.send(memoryview(mapped)[:5])
    assert rx.recv() == b"hello"


@pytest.mark.parametrize("payload", ["text", 5, None, {1}, object()], ids=lambda payload: type(payload).__name__)
def test_what_has_no_buffer_is_refused_by_its_type(ends, payload):
    tx, rx = ends
    for send in (tx.send, tx.try_send, lambda payload: tx.send_many([b"x", payload])):
        with pytest.raises(TypeError, match=f"not {type(payload).__name__}"):
            send(payload)
    assert rx.try_recv() is None


def test_references_to_objects_are_refused(ends):
    with pytest.raises(TypeError, match="pickle them"):
        ends[0].send(np.array([object()]))
    with pytest.raises(TypeError, match="pickle them"):
        ends[0].send(np.zeros(2, [("count", "u4"), ("what", "O")]))


def test_a_field_may_be_called_as_it_likes(ends):
    """Formats of buffers name fields among types, where an O is a reference to an object."""
    tx, rx = ends
    prices = np.array([(1.5, 2.5)], [("Open", "f8"), ("Close", "f8")])
    tx.send(prices)
    assert np.frombuffer(rx.recv(), prices.dtype) == prices


def test_a_payload_that_is_not_contiguous_is_refused_with_its_strides(ends):
    with pytest.raises(ValueError, match=r"strides \(2,\)"):
        ends[0].send(memoryview(b"abcdef")[::2])


def test_the_longest_message_fits_and_one_byte_more_never_does(ends):
    tx, rx = ends
    longest = 4096 - 16
    tx.send(b"x" * longest)
    assert rx.recv() == b"x" * longest
    for send in (tx.send, tx.try_send, lambda payload: tx.send_many([payload])):
        with pytest.raises(mk.MessageTooLarge, match="never fits") as caught:
            send(b"x" * (longest + 1))
        assert (caught.value.length, caught.value.limit) == (longest + 1, longest)
    with pytest.raises(mk.MessageTooLarge), tx.reserve(longest + 1):
        pass
    with pytest.raises(mk.MessageTooLarge), tx.reserve(1 << 80):
        pass
    assert rx.try_recv() is None


def test_a_full_ring_refuses_without_waiting_and_takes_again_when_emptied(ends):
    tx, rx = ends
    count = sum(1 for _ in iter(lambda: tx.try_send(b"x" * 100), False))
    assert count == 4096 // 120
    with pytest.raises(TimeoutError, match="no room"):
        tx.send(b"x" * 100, timeout=0)
    with pytest.raises(mk.Timeout, match=r"no room within 0.01 s"):
        tx.send(b"x" * 100, timeout=0.01)
    assert rx.recv() == b"x" * 100
    assert tx.try_send(b"x" * 100)


def test_an_empty_ring_says_so_in_each_way(ends):
    _, rx = ends
    assert rx.try_recv() is None
    assert rx.try_recv_many(5) == []
    for timeout in (0, -1, 0.01):
        with pytest.raises(TimeoutError, match="nothing came from the sender"):
            rx.recv(timeout=timeout)
        with pytest.raises(mk.Timeout):
            rx.recv_many(5, timeout=timeout)
        with pytest.raises(mk.Timeout), rx.peek(timeout=timeout):
            pass
        with pytest.raises(mk.Timeout):
            rx.recv_into(bytearray(10), timeout=timeout)


def test_a_timeout_may_be_for_ever_but_must_be_a_number(ends):
    tx, rx = ends
    for timeout in (float("inf"), 1e300):
        tx.send(b"x", timeout=timeout)
        assert rx.recv(timeout=timeout) == b"x"
    with pytest.raises(ValueError, match="nan"):
        rx.recv(timeout=float("nan"))
    with pytest.raises(TypeError):
        rx.recv(timeout="1")  # type: ignore[arg-type]


# --- batches


def test_send_many_sends_all_from_any_iterable_and_says_how_many(ends):
    tx, rx = ends
    assert tx.send_many(str(i).encode() for i in range(20)) == 20
    assert tx.send_many([]) == 0
    assert rx.recv_many(100) == [str(i).encode() for i in range(20)]


def test_one_message_is_not_many(ends):
    for one in (b"abc", bytearray(b"abc"), "abc"):
        with pytest.raises(TypeError, match="put it into a list"):
            ends[0].send_many(one)


def test_send_many_that_runs_out_of_time_says_how_many_went_out(ends):
    tx, rx = ends
    with pytest.raises(mk.Timeout) as caught:
        tx.send_many([b"x" * 1000] * 10, timeout=0.01)
    assert caught.value.sent == 4
    assert rx.recv_many(100) == [b"x" * 1000] * 4
    assert tx.try_send_many([b"y" * 1000] * 10) == 4
    assert tx.try_send_many([b"y" * 1000]) == 0


def test_send_many_stops_before_a_message_that_never_fits(ends):
    tx, rx = ends
    with pytest.raises(mk.MessageTooLarge) as caught:
        tx.send_many([b"a", b"b", b"c" * 5000, b"d"])
    assert (caught.value.sent, caught.value.length) == (2, 5000)
    assert rx.recv_many(9) == [b"a", b"b"]


def test_send_many_larger_than_the_ring_goes_on_as_it_is_emptied(ends):
    tx, rx = ends
    messages = [bytes([i % 256]) * (i % 300) for i in range(2000)]
    sender = Thread(lambda: tx.send_many(messages, timeout=LIMIT))
    received: list[bytes] = []
    while len(received) < len(messages):
        received += rx.recv_many(7, timeout=LIMIT)
    assert sender.value() == len(messages)
    assert received == messages


def test_recv_many_takes_at_most_the_limit_and_no_less_than_what_is_there(ends):
    tx, rx = ends
    tx.send_many([b"%d" % i for i in range(10)])
    assert rx.recv_many(3) == [b"0", b"1", b"2"]
    assert rx.try_recv_many(4) == [b"3", b"4", b"5", b"6"]
    assert rx.recv_many(1 << 62) == [b"7", b"8", b"9"]
    for bad in (0, -1):
        with pytest.raises(ValueError, match="the least is 1"):
            rx.recv_many(bad)
        with pytest.raises(ValueError, match="the least is 1"):
            rx.try_recv_many(bad)


def test_more_than_one_step_of_a_batch_comes_in_one_call():
    with mk.Ring("1M") as ring:
        tx, rx = ring.sender(), ring.receiver()
        messages = [b"%d" % i * 200 for i in range(1000)]
        assert tx.send_many(messages) == 1000
        assert rx.recv_many(1000) == messages


def test_recv_into_needs_a_writable_buffer_that_is_long_enough_and_else_takes_nothing(ends):
    tx, rx = ends
    tx.send(b"hello")
    for bad in (bytearray(4), b"abcdefgh", memoryview(bytearray(20))[::2]):
        with pytest.raises(ValueError, match="buffer"):
            rx.recv_into(bad)
    with pytest.raises(TypeError):
        rx.recv_into(5)
    target = bytearray(8)
    assert rx.recv_into(target) == 5
    assert target == b"hello\0\0\0"


def test_iteration_ends_where_the_sender_closed(ends):
    tx, rx = ends
    tx.send_many([b"a", b"b"])
    tx.close()
    assert list(rx) == [b"a", b"b"]


# --- what a ring is


@pytest.mark.parametrize(("asked", "given"), [(1, 4096), (4096, 4096), (4097, 8192), ("1M", 1 << 20), ("5K", 8192)])
def test_a_capacity_is_rounded_up_to_a_power_of_two(asked, given):
    with mk.Ring(asked) as ring:
        assert ring.capacity == given
        tx = ring.sender()
        assert (tx.capacity, tx.free) == (given, given)
        tx.send(b"12345678")
        assert tx.free == given - 24


@pytest.mark.parametrize(
    ("asked", "why"), [(0, "at least one byte"), ("much", "much"), ("1000P", "at most"), (-5, "-5")]
)
def test_a_capacity_that_cannot_be_is_refused(asked, why):
    before = open_descriptors()
    with pytest.raises(ValueError, match=why):
        mk.Ring(asked)
    assert open_descriptors() == before


def test_an_end_is_handed_out_once(ring):
    ring.sender(), ring.receiver()
    with pytest.raises(mk.NotOwner, match="sender was handed out"):
        ring.sender()
    with pytest.raises(mk.NotOwner, match="receiver was handed out"):
        ring.receiver()


@pytest.mark.parametrize("end", ["sender", "receiver"])
def test_a_waiting_policy_that_does_not_exist_hands_nothing_out(ring, end):
    with pytest.raises(ValueError, match="'adaptive', 'spin', 'park'"):
        getattr(ring, end)(wait="patient")
    assert getattr(ring, end)(wait="park")


def test_a_ring_without_descriptors_enough_leaves_none():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_descriptors()
    refused = 0
    for limit in itertools.count(3):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            mk.Ring(4096).close()
        except OSError:
            refused += 1
        else:
            break
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert open_descriptors() == before
    assert refused > 5
    assert open_descriptors() == before


def test_a_claim_without_descriptors_enough_leaves_the_end_as_it_was():
    """Mapping the other side's object takes one; an end that was claimed cannot be unclaimed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_descriptors()
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        tx.send(b"x")
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            assert rx.recv() == b"x"
            with pytest.raises(OSError, match="Too many open files"):
                rx.fileno()
            tx.send(b"y")
            assert rx.recv() == b"y"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert rx.fileno() >= 0
    assert open_descriptors() == before


def test_a_ring_shows_what_was_not_handed_out(ring):
    assert "sender, receiver" in repr(ring)
    ring.sender(), ring.receiver()
    assert "nothing" in repr(ring)


# --- several pieces, one message


@pytest.mark.parametrize("kind", [list, tuple])
def test_pieces_become_one_message(ends, kind):
    tx, rx = ends
    pieces = kind([b"head", bytearray(b"er"), memoryview(b""), array.array("B", [33])])
    tx.send(pieces, timeout=LIMIT)
    assert tx.try_send(pieces)
    assert tx.send_many([b"x", pieces, kind()], timeout=LIMIT) == 3
    assert tx.try_send_many([pieces]) == 1
    assert rx.recv_many(10) == [b"header!", b"header!", b"x", b"header!", b"", b"header!"]


def test_pieces_that_never_fit_together_are_refused_with_the_limit(ends):
    tx, rx = ends
    with pytest.raises(mk.MessageTooLarge, match="5000 bytes"):
        tx.send([b"x" * 2500, b"y" * 2500])
    with pytest.raises(mk.MessageTooLarge) as caught:
        tx.send_many([b"a", [b"x" * 2500, b"y" * 2500], b"b"])
    assert caught.value.sent == 1
    assert rx.recv() == b"a"


def test_a_piece_without_a_buffer_is_refused_and_nothing_is_sent(ends):
    tx, rx = ends
    for send in (tx.send, tx.try_send, lambda pieces: tx.send_many([b"before", pieces])):
        with pytest.raises(TypeError, match="not str"):
            send([b"bytes", "text"])
    assert rx.try_recv() is None


# --- what an end says of itself


def test_an_end_knows_how_much_waits_and_how_much_is_free(ends):
    tx, rx = ends
    assert (len(rx), rx.free, tx.free, rx.capacity) == (0, 4096, 4096, 4096)
    tx.send_many([b"", b"12345678", b"9"])
    used = 16 + 24 + 24
    assert (len(rx), rx.free, tx.free) == (3, 4096 - used, 4096 - used)
    assert bool(rx)
    rx.recv()
    assert (len(rx), rx.free) == (2, 4096 - used + 16)
    rx.recv_many(9)
    assert len(rx) == 0
    assert bool(rx)


def test_an_end_shows_what_state_it_is_in(ring):
    tx, rx = ring.sender(), ring.receiver()
    assert repr(tx) == "<Sender of records, not claimed>"
    tx.send(b"12345678")
    assert repr(tx) == "<Sender of records, 4K, 24 bytes used, the receiver not claimed>"
    assert repr(rx) == "<Receiver of records, not claimed>"
    rx.recv()
    assert repr(rx) == f"<Receiver of records, 4K, 0 bytes used, the sender pid {os.getpid()}>"
    tx.close()
    assert repr(tx) == "<Sender of records, closed>"
    assert repr(rx) == "<Receiver of records, 4K, 0 bytes used, the sender gone>"
    rx.close()
    assert repr(rx) == "<Receiver of records, closed>"


# --- descriptors


def test_an_end_made_from_descriptors_is_the_end(ring):
    tx = mk.Sender.from_fds(ring.sender().detach())
    rx = mk.Receiver.from_fds(ring.receiver().detach(), wait="park")
    with tx, rx:
        tx.send(b"x")
        assert rx.recv() == b"x"


def test_descriptors_that_came_from_elsewhere_are_not_inherited_further(ring):
    fds = ring.sender().detach()
    for fd in fds:
        os.set_inheritable(fd, True)
    with mk.Sender.from_fds(fds):
        assert not any(os.get_inheritable(fd) for fd in fds)


def test_a_detached_end_is_empty(ring):
    tx = ring.sender()
    fds = tx.detach()
    for call in (tx.detach, lambda: tx.send(b"x"), lambda: pickle.dumps(tx)):
        with pytest.raises(mk.NotOwner, match="nothing of it is left here"):
            call()
    tx.close()
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("end", ["sender", "receiver"])
def test_a_claimed_end_can_no_longer_be_passed_on(ring, end):
    with getattr(ring, end)() as handle:
        handle.fileno()
        for call in (handle.detach, lambda: pickle.dumps(handle)):
            with pytest.raises(mk.NotOwner, match="claimed by this process"):
                call()


def test_the_wrong_number_of_descriptors_is_refused_and_none_is_closed(ring):
    fds = ring.sender().detach()
    for wrong in (fds[:2], (*fds, 0), ()):
        with pytest.raises(ValueError, match=f"three descriptors, not {len(wrong)}"):
            mk.Sender.from_fds(wrong)
    with pytest.raises(ValueError, match="wait="):
        mk.Sender.from_fds(fds, wait="no")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="objects"):
        mk.Sender.from_fds(fds, dtype=object)
    mk.Sender.from_fds(fds).close()


def test_descriptors_of_something_else_are_refused_at_the_first_use_and_stay_the_ends(ring):
    one, other = socket.socketpair()
    before = open_descriptors()
    own, peer, sock = ring.sender().detach()
    tx = mk.Sender.from_fds((one.detach(), peer, sock))
    with pytest.raises(mk.CorruptLane, match="no memfd"):
        tx.send(b"x")
    with pytest.raises(mk.CorruptLane, match="no memfd"):
        tx.send(b"x")
    tx.close()
    os.close(own)
    other.close()
    assert open_descriptors() < before


def test_the_two_ends_mixed_up_are_refused(ring):
    fds = ring.sender().detach()
    with mk.Receiver.from_fds(fds) as rx, pytest.raises(mk.CorruptLane, match="it is a producer object"):
        rx.recv(timeout=0)


def test_the_end_of_another_ring_is_refused(ring):
    own, peer, sock = ring.sender().detach()
    with mk.Ring(8192) as other:
        strange = other.sender().detach()
        tx = mk.Sender.from_fds((own, strange[1], sock))
        with pytest.raises(mk.CorruptLane, match=r"its capacity \(8192 bytes\)"):
            tx.send(b"x")
        tx.close()
        for fd in (peer, strange[0], strange[2]):
            os.close(fd)


def test_what_was_claimed_elsewhere_is_not_claimed_twice(ring):
    tx = ring.sender()
    fds = tx.detach()
    copies = [os.dup(fd) for fd in fds]
    with mk.Sender.from_fds(fds) as first, mk.Sender.from_fds(copies) as second:
        first.send(b"x")
        with pytest.raises(mk.NotOwner, match="claimed already"):
            second.send(b"y")
        with ring.receiver() as rx:
            assert rx.recv() == b"x"
