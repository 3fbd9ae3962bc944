"""Views of a ring: no copy, nothing dangles, and a block that ends badly sends and takes nothing."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import numpy as np  # noqa: TID253
import pytest

import multikernel as mk

from .children import LIMIT, open_descriptors


@pytest.fixture
def ends() -> Iterator[tuple[mk.Sender, mk.Receiver]]:
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        yield tx, rx


def test_what_is_written_into_a_reservation_is_sent_at_the_end_of_the_block(ends):
    tx, rx = ends
    with tx.reserve(5) as view:
        assert (view.nbytes, view.readonly, view.format) == (5, False, "B")
        view[:] = b"hello"
        assert rx.try_recv() is None
    assert rx.recv() == b"hello"


def test_a_peek_shows_the_message_where_it_lies_and_takes_it_at_the_end_of_the_block(ends):
    tx, rx = ends
    tx.send(b"hello")
    used = tx.free
    with rx.peek() as view:
        assert (bytes(view), view.readonly) == (b"hello", True)
        with pytest.raises(TypeError, match="read-only"):
            view[0] = 1
        assert tx.free == used
    assert tx.free == tx.capacity
    assert rx.try_recv() is None


def test_an_empty_message_has_an_empty_view(ends):
    tx, rx = ends
    with tx.reserve(0) as view:
        assert view.nbytes == 0
    with rx.peek() as view:
        assert bytes(view) == b""
    assert rx.try_recv() is None


def test_a_view_is_over_with_its_block(ends):
    tx, rx = ends
    with tx.reserve(3) as written:
        written[:] = b"abc"
    with rx.peek() as read:
        pass
    for view in (written, read):
        with pytest.raises(ValueError, match="released"):
            view[0]


def test_a_block_without_a_name_takes_too(ends):
    tx, rx = ends
    tx.send_many([b"a", b"b"])
    with rx.peek():
        pass
    assert rx.recv() == b"b"


def test_an_exception_in_reserve_sends_nothing(ends):
    tx, rx = ends
    with pytest.raises(KeyError), tx.reserve(3) as view:  # noqa: PT012
        view[:] = b"abc"
        raise KeyError
    assert rx.try_recv() is None
    tx.send(b"next")
    assert rx.recv() == b"next"


def test_an_exception_in_peek_takes_nothing(ends):
    tx, rx = ends
    tx.send_many([b"one", b"two"])
    for _ in range(3):
        with pytest.raises(KeyError), rx.peek():
            raise KeyError
    assert rx.recv_many(5) == [b"one", b"two"]


def test_while_a_view_is_open_its_end_is_taken_and_the_other_is_not(ends):
    tx, rx = ends
    tx.send(b"one")
    with rx.peek() as view:
        for call in (rx.recv, rx.try_recv, rx.close, rx.peek().__enter__, lambda: rx.recv_into(bytearray(9))):
            with pytest.raises(mk.NotOwner, match="a view of it is still open"):
                call()
        with tx.reserve(3) as room:
            for call in (lambda: tx.send(b"x"), tx.close, tx.reserve(1).__enter__):
                with pytest.raises(mk.NotOwner, match="a view of it is still open"):
                    call()
            room[:] = b"two"
        assert bytes(view) == b"one"  # a refused call has changed nothing
    assert rx.recv() == b"two"


def test_a_view_is_for_one_block(ends):
    tx, _ = ends
    block = tx.reserve(1)
    with block:
        pass
    with pytest.raises(RuntimeError, match="one block"), block:
        pass


@pytest.mark.parametrize(
    "keep", [lambda view: np.frombuffer(view, "u1"), lambda view: view[1:2], lambda view: memoryview(view)[:]]
)
def test_what_outlives_the_block_is_named_and_keeps_the_space_until_it_goes(ends, keep):
    tx, rx = ends
    tx.send_many([b"one", b"two"])
    with pytest.raises(BufferError, match="still alive"), rx.peek() as view:
        kept = keep(view)
    del view
    for number in range(100):  # nothing overwrites it
        tx.try_send(b"%d" % number * 40)
    with pytest.raises(mk.NotOwner):
        rx.recv()
    with pytest.raises(mk.NotOwner):
        rx.close()
    assert bytes(kept)[:1] in (b"o", b"n")
    del kept
    assert rx.recv_many(2) == [b"one", b"two"]


def test_an_array_that_outlives_a_reservation_sends_nothing(ends):
    tx, rx = ends
    with pytest.raises(BufferError), tx.reserve(8) as view:
        kept = np.frombuffer(view, "u8")
    del view
    kept[0] = 5  # still its own memory
    with pytest.raises(mk.NotOwner):
        tx.send(b"x")
    del kept
    tx.send(b"x")
    assert rx.recv_many(5) == [b"x"]


def test_an_exception_is_not_hidden_by_what_outlives_the_block(ends):
    tx, rx = ends
    tx.send(b"one")
    with pytest.raises(KeyError), rx.peek() as view:  # noqa: PT012
        kept = np.frombuffer(view, "u1")
        raise KeyError
    del view
    with pytest.raises(mk.NotOwner):
        rx.recv()
    del kept
    assert rx.recv() == b"one"


def test_an_array_may_go_in_another_thread(ends):
    tx, rx = ends
    tx.send(b"one")
    kept: list[object] = []
    with pytest.raises(BufferError), rx.peek() as view:
        kept.append(np.frombuffer(view, "u1"))
    del view
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join(LIMIT)
    assert rx.recv() == b"one"


def test_an_end_that_is_forgotten_with_an_array_alive_closes_when_that_goes():
    """The mapping stays until then: nothing dangles."""
    before = open_descriptors()
    ring = mk.Ring(4096)
    tx, rx = ring.sender(), ring.receiver()
    tx.send(b"hello")
    with pytest.raises(BufferError), rx.peek() as view:
        kept = np.frombuffer(view, "u1")
    del view
    with pytest.warns(ResourceWarning, match="unclosed <Receiver"):  # noqa: PT031
        del rx, ring
        gc.collect()
    assert bytes(kept) == b"hello"
    assert not tx.closed
    del kept
    with pytest.raises(mk.Closed):
        tx.send(b"x")
    tx.close()
    assert open_descriptors() == before


def test_a_block_that_was_entered_and_forgotten_gives_its_memory_back(ends):
    """As when a signal's handler raises between the last line of a block and its end."""
    tx, rx = ends
    tx.send(b"one")
    view = rx.peek().__enter__()
    with pytest.raises(mk.NotOwner):
        rx.recv()
    del view
    assert rx.recv() == b"one"
    room = tx.reserve(5).__enter__()
    room[:] = b"stray"
    del room
    tx.send(b"two")
    assert rx.recv_many(5) == [b"two"]


def test_two_ends_of_the_ring_are_never_seen(ends):
    """The data area is mapped twice in a row: a message is in one piece wherever it begins."""
    tx, rx = ends
    for number in range(500):
        message = number.to_bytes(2, "little") * 700
        with tx.reserve(len(message)) as view:
            view[:] = message
        with rx.peek() as view:
            assert view.contiguous
            assert view == message


# --- several at once


def test_several_records_are_seen_at_once_where_they_lie():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        messages = [b"", b"a", b"b" * 9, b"c" * 100]
        tx.send_many(messages)
        with rx.peek_many(3, timeout=LIMIT) as views:
            assert [bytes(view) for view in views] == messages[:3]
            assert all(view.readonly for view in views)
            assert rx.closed is False
        assert rx.recv() == messages[3]
        with pytest.raises(ValueError, match="released"):
            views[1][0]


def test_several_records_that_wrap_around_are_each_in_one_piece():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        for number in range(40):
            messages = [bytes([number]) * length for length in (300, 700, 500)]
            tx.send_many(messages)
            with rx.peek_many(10) as views:
                assert [bytes(view) for view in views] == messages


def test_an_exception_in_a_block_of_several_takes_none():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        tx.send_many([b"a", b"b"])
        with pytest.raises(ZeroDivisionError), rx.peek_many(2):
            1 / 0  # noqa: B018
        assert rx.recv_many(5) == [b"a", b"b"]


def test_an_array_made_from_one_of_several_keeps_the_space_until_it_is_gone():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        tx.send_many([b"a" * 8, b"b" * 8])
        with pytest.raises(BufferError, match="still alive"), rx.peek_many(2) as views:
            kept = np.frombuffer(views[1], dtype="u1")
        del views
        with pytest.raises(mk.NotOwner):
            rx.recv(timeout=LIMIT)
        assert bytes(kept) == b"b" * 8
        del kept
        assert rx.recv_many(5) == [b"a" * 8, b"b" * 8]


def test_several_are_refused_on_a_ring_of_elements_and_below_one():
    with mk.Ring(4096, dtype="u4") as ring, ring.receiver() as rx, pytest.raises(TypeError, match="use peek"):
        rx.peek_many(2)
    with mk.Ring(4096) as ring, ring.receiver() as rx, pytest.raises(ValueError, match="the least is 1"):
        rx.peek_many(0)


def test_several_wait_for_the_first_only():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        with pytest.raises(TimeoutError), rx.peek_many(2, timeout=0):
            pass
        tx.send(b"one")
        with rx.peek_many(2, timeout=LIMIT) as views:
            assert [bytes(view) for view in views] == [b"one"]
        tx.close()
        with pytest.raises(mk.Closed), rx.peek_many(2):
            pass
