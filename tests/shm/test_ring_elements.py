"""A ring of numpy arrays: nothing is converted, nothing is copied twice, and what does not fit is refused by name."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np  # noqa: TID253
import pytest

import multikernel as mk

from .children import LIMIT, Child, Words

POINT = np.dtype([("x", "f4"), ("y", "f4"), ("name", "S5")])

FORMATS = [
    ("u1", ()),
    ("f8", ()),
    ("?", (3,)),
    ("f4", (2, 3)),
    ("c16", (5,)),
    (">i2", (7,)),
    ("S11", (1,)),
    ("U3", (2,)),
    ("M8[us]", (3,)),
    ("m8[s]", ()),
    ("f2", (3, 1, 2)),
    (POINT, ()),
    (POINT, (2,)),
]


@pytest.fixture
def ends() -> Iterator[tuple[mk.Sender, mk.Receiver]]:
    """Elements of three doubles: 24 bytes, which divide no power of two."""
    with mk.Ring(4096, dtype="f8", shape=(3,)) as ring, ring.sender() as tx, ring.receiver() as rx:
        yield tx, rx


def some(dtype, shape, count: int):
    """Arbitrary bytes as elements; two of the same call differ."""
    raw = np.random.default_rng(count).bytes(np.dtype((dtype, shape)).itemsize * count)
    if np.dtype(dtype).kind in "?SU" or np.dtype(dtype).names:
        flat = np.zeros(count * int(np.prod(shape)), dtype)
        if flat.dtype.names:
            flat["x"] = np.arange(len(flat))
            flat["name"] = b"a\0b"
        else:
            flat[:] = (np.arange(len(flat)) % 2).astype(dtype)
        return flat.reshape(count, *shape)
    return np.frombuffer(raw, dtype).reshape(count, *shape)


@pytest.mark.parametrize(("dtype", "shape"), FORMATS, ids=str)
def test_every_dtype_and_shape_comes_back_bit_for_bit(dtype, shape):
    with mk.Ring(4096, dtype=dtype, shape=shape) as ring, ring.sender() as tx, ring.receiver() as rx:
        elements = some(dtype, shape, 9)
        for element in elements:
            tx.send(element)
            back = rx.recv()
            assert (back.dtype, back.shape) == (elements.dtype, shape)
            assert back.tobytes() == element.tobytes()
        assert tx.send_many(elements) == 9
        back = rx.recv_many(20)
        assert (back.dtype, back.shape) == (elements.dtype, (9, *shape))
        assert back.tobytes() == elements.tobytes()
        assert tx.try_send(elements[0])
        assert rx.try_recv().tobytes() == elements[0].tobytes()
        assert rx.try_recv() is None
        empty = rx.try_recv_many(5)
        assert (empty.dtype, empty.shape) == (elements.dtype, (0, *shape))


def test_elements_that_straddle_the_end_of_the_ring_are_whole(ends):
    tx, rx = ends
    for number in range(2000):
        block = np.arange(number, number + 3 * (1 + number % 50), dtype="f8").reshape(-1, 3)
        assert tx.send_many(block) == len(block)
        np.testing.assert_array_equal(rx.recv_many(1000), block)


def test_more_than_the_ring_holds_goes_through_in_pieces(ends):
    tx, rx = ends
    block = np.arange(30_000, dtype="f8").reshape(-1, 3)

    def send(words: Words) -> None:
        assert tx.send_many(block, timeout=LIMIT) == len(block)
        tx.close()

    with Child(send) as child:
        received = []
        with pytest.raises(mk.Closed):  # noqa: PT012
            while True:
                received.append(rx.recv_many(1000, timeout=LIMIT))
        np.testing.assert_array_equal(np.concatenate(received), block)
        assert child.wait() == 0


def test_a_full_ring_takes_what_there_is_room_for(ends):
    tx, rx = ends
    block = np.ones((500, 3))
    assert tx.try_send_many(block) == 4096 // 24
    assert tx.try_send_many(block) == 0
    assert not tx.try_send(block[0])
    with pytest.raises(mk.Timeout) as caught:
        tx.send_many(block, timeout=0.01)
    assert caught.value.sent == 0
    rx.recv_many(10)
    with pytest.raises(mk.Timeout) as caught:
        tx.send_many(block, timeout=0.01)
    assert caught.value.sent == 10


@pytest.mark.parametrize("wrong", [b"x" * 24, [1.0, 2.0, 3.0], 5.0, None], ids=lambda wrong: type(wrong).__name__)
def test_what_is_no_array_is_refused_by_its_type(ends, wrong):
    tx, rx = ends
    for call in (tx.send, tx.try_send, tx.send_many, tx.try_send_many, rx.recv_into):
        with pytest.raises(TypeError, match=f"not {type(wrong).__name__}"):
            call(wrong)


@pytest.mark.parametrize("dtype", ["f4", "i8", ">f8", "c16"])
def test_another_dtype_is_refused_with_both(ends, dtype):
    tx, rx = ends
    for call, array in (
        (tx.send, np.zeros(3, dtype)),
        (tx.send_many, np.zeros((2, 3), dtype)),
        (rx.recv_into, np.zeros((2, 3), dtype)),
    ):
        with pytest.raises(TypeError, match=rf"carries float64, the array has {np.dtype(dtype)}.*astype"):
            call(array)
    assert rx.try_recv() is None


def test_another_shape_is_refused_with_both(ends):
    tx, rx = ends
    for array in (np.zeros(2), np.zeros((1, 3)), np.zeros(()), np.zeros((3, 1))):
        with pytest.raises(ValueError, match=r"carries shape \(3,\)"):
            tx.send(array)
    for array in (np.zeros(3), np.zeros((3, 2)), np.zeros((2, 3, 1)), np.zeros(())):
        for call in (tx.send_many, rx.recv_into):
            with pytest.raises(ValueError, match=r"carries shape \(n, 3\)"):
                call(array)
    assert rx.try_recv() is None


def test_an_array_that_is_not_contiguous_is_refused(ends):
    tx, rx = ends
    for call, array in (
        (tx.send, np.zeros(6)[::2]),
        (tx.send_many, np.zeros((4, 3), order="F")),
        (tx.send_many, np.zeros((8, 3))[::2]),
        (rx.recv_into, np.zeros((4, 3), order="F")),
    ):
        with pytest.raises(ValueError, match="contiguous"):
            call(array)


def test_recv_into_fills_from_the_front_and_says_how_many(ends):
    tx, rx = ends
    tx.send_many(np.arange(9.0).reshape(3, 3))
    target = np.full((5, 3), -1.0)
    assert rx.recv_into(target) == 3
    np.testing.assert_array_equal(target[:3].ravel(), np.arange(9.0))
    assert (target[3:] == -1).all()
    tx.send_many(np.arange(9.0).reshape(3, 3))
    assert rx.recv_into(target[:2]) == 2
    assert rx.recv_into(target) == 1


def test_recv_into_what_cannot_be_written_takes_nothing_and_keeps_nobody_out(ends):
    tx, rx = ends
    tx.send(np.ones(3))
    fixed = np.zeros((2, 3))
    fixed.flags.writeable = False
    for wrong in (fixed, np.zeros((0, 3))):
        with pytest.raises(ValueError, match=r"read-only|no place"):
            rx.recv_into(wrong)
    np.testing.assert_array_equal(rx.recv(), np.ones(3))


def test_reserve_and_peek_count_elements(ends):
    tx, rx = ends
    with tx.reserve(4) as view:
        assert len(view) == 4 * 24
        block = np.frombuffer(view, "f8").reshape(4, 3)
        block[:] = np.arange(12.0).reshape(4, 3)
        del block
    with rx.peek(limit=3) as view:
        assert len(view) == 3 * 24
        np.testing.assert_array_equal(np.frombuffer(view, "f8"), np.arange(9.0))
    with rx.peek(limit=1 << 62) as view:
        np.testing.assert_array_equal(np.frombuffer(view, "f8"), np.arange(9.0, 12.0))
    for bad in (0, -1):
        with pytest.raises(ValueError, match="the least is 1"):
            tx.reserve(bad)
        with pytest.raises(ValueError, match="the least is 1"):
            rx.peek(limit=bad)
    with pytest.raises(mk.MessageTooLarge) as caught, tx.reserve(171):
        pass
    assert (caught.value.length, caught.value.limit) == (171 * 24, 4096)


@pytest.mark.parametrize(
    ("dtype", "shape", "why"),
    [
        (object, (), "objects cannot lie in shared memory"),
        ([("a", "O")], (), "objects cannot"),
        ("f8", (0,), "no size"),
        (None, (3,), "without a dtype"),
        (None, 3, "without a dtype"),
    ],
    ids=str,
)
def test_a_format_that_cannot_be_is_refused(dtype, shape, why):
    with pytest.raises(ValueError, match=why):
        mk.Ring(4096, dtype=dtype, shape=shape)


def test_a_ring_is_at_least_as_large_as_an_element():
    with mk.Ring(1, dtype="f8", shape=(1000,)) as ring, ring.sender() as tx, ring.receiver() as rx:
        assert ring.capacity == 8192
        tx.send(np.arange(1000.0))
        assert not tx.try_send(np.arange(1000.0))
        np.testing.assert_array_equal(rx.recv(), np.arange(1000.0))


@pytest.mark.parametrize(
    ("dtype", "shape", "why"),
    [
        (None, (), "elements of 24 bytes, not records"),
        ("f8", (), "elements of 24 bytes, not elements of 8 bytes"),
        ("f8", (3000,), "elements of 24 bytes, not elements of 24000 bytes"),
    ],
    ids=str,
)
def test_an_end_taken_for_another_format_is_refused_and_not_claimed(dtype, shape, why):
    """Nobody reads beyond the ring because somebody else was wrong about what is in it."""
    with mk.Ring(4096, dtype="f8", shape=(3,)) as ring, ring.sender() as tx:
        tx.send(np.ones(3))
        fds = ring.receiver().detach()
        wrong = mk.Receiver.from_fds([os.dup(fd) for fd in fds], dtype=dtype, shape=shape)
        for call in (wrong.recv, wrong.try_recv, wrong.fileno, lambda: wrong.recv_many(9)):
            with pytest.raises(ValueError, match=why):
                call()
        wrong.close()
        with mk.Receiver.from_fds(fds, dtype="f8", shape=3) as rx:
            np.testing.assert_array_equal(rx.recv(), np.ones(3))


def test_a_ring_of_records_taken_for_elements_is_refused():
    with (
        mk.Ring(4096) as ring,
        mk.Sender.from_fds(ring.sender().detach(), dtype="f8") as tx,
        pytest.raises(ValueError, match="carries records, not elements of 8 bytes"),
    ):
        tx.send(np.float64(1))


# --- by the extension's calls or by Python, all the same


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("u1", ()), ("f4", (3,)), ("u2", (1,) * 9), ("datetime64[s]", ()), ([("a", "u4"), ("b", "f8", (2,))], ())],
    ids=["bytes", "vectors", "nine dimensions", "times", "structures"],
)
@pytest.mark.parametrize("count", [1, 7, 5000], ids=["one", "some", "a long batch"])
def test_elements_of_every_kind_come_out_as_they_went_in(dtype, shape, count):
    with mk.Ring("1M", dtype=dtype, shape=shape) as ring, ring.sender() as tx, ring.receiver() as rx:
        elements = np.zeros((count, *shape), dtype)
        flat = elements.reshape(-1).view("u1")
        flat[:] = np.arange(flat.size) % 251
        for _ in range(3):
            assert tx.send_many(elements) == count
            assert rx.recv_many(count).tobytes() == elements.tobytes()
            assert tx.try_send_many(elements) == count
            target = np.zeros_like(elements)
            assert rx.recv_into(target, timeout=LIMIT) == count
            assert target.tobytes() == elements.tobytes()
        got = rx.try_recv_many(3)
        assert (got.dtype, got.shape) == (elements.dtype, (0, *elements.shape[1:]))


def test_an_equal_dtype_that_is_another_object_is_the_same():
    one, other = (np.dtype([("a", "u4")]) for _ in range(2))
    assert one is not other
    with mk.Ring(4096, dtype=one) as ring, ring.sender() as tx, ring.receiver() as rx:
        for _ in range(2):
            tx.send_many(np.ones(3, other))
            assert rx.recv_into(np.zeros(3, other)) == 3


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (np.zeros(3, "u2"), TypeError),
        (np.zeros((3, 1), "u4"), ValueError),
        (np.zeros(6, "u4")[::2], ValueError),
        (memoryview(np.zeros(3, "u4")), TypeError),
        (np.uint32(1), ValueError),
    ],
    ids=["dtype", "shape", "strides", "no array", "scalar"],
)
def test_what_is_not_an_array_of_the_elements_is_refused_also_once_the_ends_are_in_use(wrong, error):
    with mk.Ring(4096, dtype="u4") as ring, ring.sender() as tx, ring.receiver() as rx:
        tx.send_many(np.ones(1, "u4"))
        assert len(rx.recv_many(9)) == 1
        for call in (tx.send_many, tx.try_send_many, rx.recv_into):
            with pytest.raises(error):
                call(wrong)
        assert len(rx) == 0


def test_a_target_that_cannot_take_anything_is_refused():
    with mk.Ring(4096, dtype="u4") as ring, ring.sender() as tx, ring.receiver() as rx:
        tx.send_many(np.ones(2, "u4"))
        assert len(rx.recv_many(1)) == 1
        frozen = np.zeros(3, "u4")
        frozen.flags.writeable = False
        for target in (frozen, np.zeros(0, "u4")):
            with pytest.raises(ValueError, match=r"read-only|no place"):
                rx.recv_into(target)
        assert len(rx) == 1
