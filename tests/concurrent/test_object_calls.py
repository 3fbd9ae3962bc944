"""What the calls in C do themselves, and what they hand on: the same objects come out, in the same order."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

import multikernel as mk
from tests.eventually import PATIENCE


class Nested:
    """Puts or sends something else while it is pickled."""

    def __init__(self, before) -> None:
        self.before = before

    def __reduce__(self):
        self.before()
        return str, ("outer",)


class Broken:
    def __reduce__(self):
        raise RuntimeError("not this one")


@contextmanager
def way(kind):
    if kind == "queue":
        queue = mk.Queue()
        yield queue.put, queue.get, queue.close
        queue.close()
        queue.join_thread()
    else:
        receiving, sending = mk.Pipe(duplex=False)
        sending.send("claimed")
        assert receiving.recv() == "claimed"
        yield sending.send, receiving.recv, sending.close
        sending.close()
        receiving.close()


OBJECTS = [
    None,
    True,
    7,
    1.5,
    "text",
    b"",
    b"x" * 4095,
    b"x" * 4096,
    "y" * 40_000,
    b"z" * 100_000,
    bytearray(b"writable"),
    {"a": [1, (2, 3)]},
    [b"in pieces" * 20_000, "and more"],
    {"small": "again"},
]


@pytest.mark.parametrize("kind", ["queue", "pipe"])
def test_short_and_long_objects_come_out_as_they_went_in(kind):
    with way(kind) as (put, get, _):
        for each in OBJECTS * 3:
            put(each)
            found = get()
            assert found == each
            assert type(found) is type(each)


@pytest.mark.parametrize("kind", ["queue", "pipe"])
def test_an_object_may_put_another_one_while_it_is_pickled(kind):
    with way(kind) as (put, get, _):
        for number in range(3):
            put([Nested(lambda n=number: put({"inner": n}))])
            assert [get(), get()] == [{"inner": number}, ["outer"]]


@pytest.mark.parametrize("kind", ["queue", "pipe"])
def test_what_cannot_be_pickled_leaves_nothing_behind(kind):
    with way(kind) as (put, get, _):
        for number in range(3):
            with pytest.raises(RuntimeError, match="not this one"):
                put([number, "begun", Broken()])
            put([number])
            assert get() == [number]


@pytest.mark.parametrize("kind", ["queue", "pipe"])
def test_what_is_pickled_does_not_stay_alive_or_become_a_reference(kind):
    with way(kind) as (put, get, _):
        shared = ["the same"]
        for number in range(3):
            shared.append(str(number))
            put(shared)
            assert get() == shared


@pytest.mark.parametrize("kind", ["queue", "pipe"])
def test_an_object_that_closes_the_end_while_it_is_pickled_is_not_put(kind):
    with way(kind) as (put, _, close), pytest.raises((ValueError, OSError), match="closed"):
        put([Nested(close)])


@pytest.mark.parametrize("kind", ["queue", "pipe"])
def test_what_is_put_by_name(kind):
    with way(kind) as (put, get, _):
        put(obj="by name")
        assert get() == "by name"
        for wrong in (put, lambda: put("x", nonsense=1), lambda: get(nonsense=1)):
            with pytest.raises(TypeError):
                wrong()


def test_order_is_kept_when_the_lane_fills_and_empties():
    queue = mk.Queue()
    for turn in range(3):
        for number in range(5000):  # a lane holds 2048
            queue.put((turn, number))
        for number in range(5000):
            assert queue.get(timeout=PATIENCE) == (turn, number)
    queue.close()
    queue.join_thread()
