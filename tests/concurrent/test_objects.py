"""Objects to records and back: what is copied, what is a view, and by whose reducers."""

from __future__ import annotations

import pickle
import socket
import threading
import weakref
from multiprocessing import resource_sharer
from multiprocessing.reduction import ForkingPickler

import numpy as np  # noqa: TID253
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multikernel.concurrent.objects import from_record, lay_out, length_of, to_record

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


def whole(value):
    """The record of an object in one piece, laid out as the ends of a ring do it."""
    record = to_record(value)
    if type(record) is bytes:
        return record
    target = bytearray(length_of(record))
    lay_out(record, memoryview(target))
    return bytes(target)


@given(plain)
def test_an_object_comes_back(value):
    assert from_record(whole(value)) == value


@given(st.lists(st.integers(0, 40), max_size=9), plain)
def test_arrays_come_back_whatever_their_sizes(sizes, beside):
    arrays = [np.arange(n, dtype=np.uint8) for n in sizes]
    back, other = from_record(whole((arrays, beside)))
    assert other == beside
    assert [array.tolist() for array in back] == [array.tolist() for array in arrays]


def test_a_small_object_is_a_bare_pickle():
    assert pickle.loads(to_record({"a": (1, 2)})) == {"a": (1, 2)}  # noqa: TID251


def test_the_data_of_arrays_and_large_bytes_are_not_copied_into_the_pieces():
    array, text = np.arange(10_000.0), b"x" * 200_000
    pieces = to_record([array, text])
    assert any(piece is text for piece in pieces)
    assert any(np.shares_memory(array, np.asarray(piece)) for piece in pieces if isinstance(piece, memoryview))


def test_a_copied_array_can_be_written_and_one_that_was_read_only_cannot():
    mine, theirs = np.zeros(8), np.zeros(8)
    theirs.flags.writeable = False
    record = bytearray(whole([mine, theirs]))
    one, other = from_record(record)
    record[:] = bytes(len(record))
    one[:] = 5
    assert one.sum() == 40
    assert not other.flags.writeable


def test_a_view_shares_the_memory_of_the_record_and_keeps_it():
    record = bytearray(whole({"a": np.arange(100)}))
    view = memoryview(record).toreadonly()
    array = from_record(view, copy=False)["a"]
    assert np.shares_memory(array, np.asarray(view))
    assert not array.flags.writeable
    with pytest.raises(BufferError):
        record.clear()
    assert array.tolist() == list(range(100))


def test_one_array_twice_in_an_object_is_one_array_afterwards():
    array = np.arange(5)
    back = from_record(whole([array, array]))
    assert back[0] is back[1]


class Registered:
    def __init__(self, name):
        self.name = name


def _reduce(thing):
    return Registered, (thing.name + " by its reducer",)


def test_reducers_registered_for_multiprocessing_count():
    to_record(Registered("before"))
    ForkingPickler.register(Registered, _reduce)
    try:
        assert from_record(whole([Registered("x")]))[0].name == "x by its reducer"
    finally:
        del ForkingPickler._extra_reducers[Registered]
    assert from_record(whole([Registered("x")]))[0].name == "x"


def test_a_socket_travels():
    one, other = socket.socketpair()
    try:
        with one, other, from_record(whole(other)) as copy:
            copy.sendall(b"from the copy")
            assert one.recv(20) == b"from the copy"
    finally:
        resource_sharer.stop()


class Nested:
    """Pickles something else while it is pickled."""

    def __init__(self, inner):
        self.inner = inner

    def __reduce__(self):
        return from_record, (whole(self.inner),)


def test_pickling_in_the_middle_of_pickling():
    assert from_record(whole([1, Nested([2, Nested("three")]), np.arange(3)]))[1] == [2, "three"]


@pytest.mark.parametrize("value", [lambda: None, threading.Lock(), (n for n in "ab")])
def test_what_cannot_be_pickled_raises_and_leaves_the_next_alone(value):
    with pytest.raises((pickle.PicklingError, TypeError, AttributeError)):
        to_record([np.arange(3), value])
    assert from_record(whole([np.arange(3)]))[0].tolist() == [0, 1, 2]


class Plain:
    pass


def test_an_object_is_not_kept_alive_by_having_been_pickled():
    value = Plain()
    gone = weakref.ref(value)
    whole(value)
    del value
    assert gone() is None


def test_threads_pickle_at_once():
    wrong = []

    def work(n):
        wrong.extend(i for i in range(2_000) if from_record(whole((n, i, "x" * n))) != (n, i, "x" * n))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
