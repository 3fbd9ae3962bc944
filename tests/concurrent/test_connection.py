"""Pipes: what multiprocessing's promise, between threads and processes, and what the death of one end means."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import threading
from multiprocessing import resource_sharer
from multiprocessing.connection import wait

import numpy as np  # noqa: TID253
import pytest
from hypothesis import given
from hypothesis import strategies as st

import multikernel as mk
from tests.eventually import PATIENCE

from . import targets

METHODS = ["fork", "spawn", "forkserver"]

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


@pytest.fixture
def ends():
    a, b = mk.Pipe()
    with a, b:
        yield a, b


def start(method, target, *args):
    process = multiprocessing.get_context(method).Process(target=target, args=args)
    process.start()
    return process


def join(process, code=0):
    process.join(PATIENCE)
    assert process.exitcode == code
    process.close()


# --- one process


@pytest.mark.parametrize(
    "value", [None, 1, "text", b"", [1, {"a": (2.5, None)}], b"x" * 10_000_000, {"k": "v" * 70_000}]
)
def test_objects_of_any_length_go_both_ways(ends, value):
    a, b = ends
    for tx, rx in ((a, b), (b, a)):
        sending = threading.Thread(target=tx.send, args=(value,))
        sending.start()
        assert rx.recv() == value
        sending.join()


@pytest.mark.parametrize("count", [10, 1_000_000])
def test_arrays_stay_in_the_message_where_no_copy_is_asked_for(ends, count):
    a, b = ends
    array = np.arange(count, dtype=np.float64)
    sending = threading.Thread(target=a.send, args=({"a": array, "b": array[::-1].copy()},))
    sending.start()
    back = b.recv(copy=False)
    sending.join()
    np.testing.assert_array_equal(back["a"], array)
    np.testing.assert_array_equal(back["b"], array[::-1])
    assert not back["a"].flags.owndata
    assert back["a"].flags.writeable == (count > 10)  # a long one has memory of its own
    a.send("the next one does not touch it")
    b.recv()
    np.testing.assert_array_equal(back["a"], array)


@pytest.mark.parametrize("count", [0, 1, 1_000, 5_000, 300_000])
def test_arrays_come_out_as_they_went_in_and_can_be_written(ends, count):
    a, b = ends
    array = np.arange(count, dtype=np.float64)
    sending = threading.Thread(target=a.send, args=({"a": array},))
    sending.start()
    back = b.recv()["a"]
    sending.join()
    np.testing.assert_array_equal(back, array)
    assert back.flags.writeable


LONG = st.integers(33_000, 40_000).map(lambda length: length.to_bytes(4, "big") * (length // 4))


@given(st.lists(st.one_of(st.binary(), st.integers(), LONG), max_size=5))
def test_bytes_and_objects_share_one_stream(values):
    a, b = mk.Pipe(duplex=False)
    with a, b:
        for value in values:
            b.send_bytes(value) if isinstance(value, bytes) else b.send(value)
        for value in values:
            assert (a.recv_bytes() if isinstance(value, bytes) else a.recv()) == value
        assert not a.poll()


def test_a_pickle_sent_as_bytes_is_an_object_and_an_object_is_received_as_a_pickle(ends):
    a, b = ends
    a.send_bytes(pickle.dumps({"a": 1}))
    assert b.recv() == {"a": 1}
    a.send({"b": 2})
    assert pickle.loads(b.recv_bytes()) == {"b": 2}  # noqa: TID251


def test_parts_of_a_buffer(ends):
    a, b = ends
    text = bytes(range(200)) * 100
    for arguments in ((), (3,), (3, 5), (0, 0), (len(text),), (7, 15_000)):
        a.send_bytes(text, *arguments)
        offset, size = (*arguments, *(0, None)[len(arguments) :])
        assert b.recv_bytes() == text[offset : None if size is None else offset + size]
    for arguments in ((-1,), (len(text) + 1,), (0, -1), (1, len(text))):
        with pytest.raises(ValueError, match=r"offset|size|length"):
            a.send_bytes(text, *arguments)
    a.send_bytes(np.arange(10, dtype="i4"))
    assert b.recv_bytes() == np.arange(10, dtype="i4").tobytes()


def test_bytes_into_memory_of_ones_own(ends):
    a, b = ends
    target = bytearray(20)
    a.send_bytes(b"hello")
    assert b.recv_bytes_into(target, 3) == 5
    assert target[3:8] == b"hello"
    numbers = np.zeros(4, dtype="i8")
    a.send_bytes(np.arange(3, dtype="i8"))
    assert b.recv_bytes_into(numbers) == 24
    assert numbers.tolist() == [0, 1, 2, 0]
    a.send_bytes(b"y" * 21)
    with pytest.raises(multiprocessing.BufferTooShort) as caught:
        b.recv_bytes_into(target)
    assert caught.value.args == (b"y" * 21,)
    for offset in (-1, 21):
        with pytest.raises(ValueError, match="offset"):
            b.recv_bytes_into(target, offset)


def test_a_message_longer_than_acceptable_ends_the_receiving(ends):
    a, b = ends
    a.send_bytes(b"12345")
    assert b.recv_bytes(5) == b"12345"
    with pytest.raises(ValueError, match="negative"):
        b.recv_bytes(-1)
    a.send_bytes(b"123456")
    with pytest.raises(OSError, match="bad message length"):
        b.recv_bytes(5)
    assert not b.readable
    assert b.writable


def test_one_direction(ends):
    reader, writer = mk.Pipe(duplex=False)
    with reader, writer:
        assert (reader.readable, reader.writable) == (True, False)
        assert (writer.readable, writer.writable) == (False, True)
        with pytest.raises(OSError, match="read-only"):
            reader.send(1)
        with pytest.raises(OSError, match="write-only"):
            writer.recv()
        with pytest.raises(OSError, match="write-only"):
            writer.poll()
    a, b = ends
    assert all((a.readable, a.writable, b.readable, b.writable))


def test_poll_says_what_a_receive_would_do(ends):
    a, b = ends
    assert not b.poll()
    assert not b.poll(0.01)
    a.send("x")
    for timeout in (0.0, 0.1, None):
        assert b.poll(timeout)
    assert b.recv() == "x"
    assert not b.poll()
    timer = threading.Timer(0.02, a.send, ("y",))
    timer.start()
    assert b.poll(PATIENCE)
    assert b.recv() == "y"
    timer.join()
    a.close()
    assert b.poll()


def test_after_the_other_end_is_closed_what_was_sent_comes_and_then_the_end(ends):
    a, b = ends
    assert not b.poll()
    a.send("last words")
    a.close()
    assert b.recv() == "last words"
    for receive in (b.recv, b.recv_bytes):
        with pytest.raises(EOFError):
            receive()
    with pytest.raises(BrokenPipeError):
        b.send("to nobody")


def test_a_closed_end_does_nothing(ends):
    a, _ = ends
    assert not a.closed
    a.close()
    a.close()
    assert a.closed
    for use in (lambda: a.send(1), a.recv, a.poll, a.fileno, lambda: a.send_bytes(b"x"), lambda: pickle.dumps(a)):
        with pytest.raises(OSError, match="closed"):
            use()


def test_what_cannot_be_pickled_raises_and_the_pipe_goes_on(ends):
    a, b = ends
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        a.send(lambda: None)
    a.send("next")
    assert b.recv() == "next"


def test_waiting_on_several_by_their_descriptors(ends):
    a, b = ends
    c, d = mk.Pipe()
    with c, d:
        assert wait([b, d], 0) == []
        c.send(1)
        assert wait([b, d], PATIENCE) == [d]
        a.send(2)
        assert set(wait([b, d], PATIENCE)) == {b, d}
        assert (b.recv(), d.recv()) == (2, 1)
        assert wait([b, d], 0) == []
        a.close()
        assert wait([b, d], PATIENCE) == [b]


def test_an_interrupted_sender_loses_its_object_and_no_other(ends):
    a, b = ends
    a.send("before it")  # both are claimed: who is interrupted in the middle of that has lost the end
    assert b.recv() == "before it"
    received = []

    def interrupt(*_):
        raise KeyboardInterrupt

    def send():
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        a.send(b"x" * 5_000_000)  # nobody takes it

    receiving = threading.Thread(target=lambda: received.append(b.recv()))
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            send()
        receiving.start()
        a.send("after it")
    finally:
        signal.signal(signal.SIGALRM, before)
    receiving.join()
    assert received == ["after it"]


def test_a_garbage_collected_end_is_closed_without_a_word():
    a, b = mk.Pipe()
    a.send(1)
    assert b.recv() == 1
    del a
    with pytest.raises(EOFError):
        b.recv()
    b.close()


# --- processes


@pytest.mark.parametrize("method", METHODS)
def test_a_child_echoes_and_learns_of_the_end(method):
    a, b = mk.Pipe()
    with a:
        child = start(method, targets.echo, b)
        b.close()  # handed on: the child has its own
        for value in ("x", b"y" * 1_000_000, np.arange(100_000)):
            a.send(value)
            np.testing.assert_array_equal(a.recv(), value)
        a.close()
        join(child)


@pytest.mark.parametrize("method", METHODS)
def test_a_child_that_ends_leaves_what_it_sent_and_then_the_end(method):
    reader, writer = mk.Pipe(duplex=False)
    with reader:
        child = start(method, targets.say, writer, [1, 2])
        writer.close()
        assert reader.recv() == [1, 2]
        with pytest.raises(EOFError):
            reader.recv()
        join(child)


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_child_is_the_end_in_both_directions(method):
    a, b = mk.Pipe()
    said, saying = mk.Pipe(duplex=False)
    with a, said:
        child = start(method, targets.hold, b, saying)
        b.close()
        saying.close()
        assert said.recv() == "claimed"
        child.kill()
        with pytest.raises(EOFError):
            a.recv()
        with pytest.raises(BrokenPipeError):
            a.send(1)
        join(child, -signal.SIGKILL)


def test_a_child_killed_before_it_used_its_end_is_the_end_too():
    a, b = mk.Pipe()
    with a:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        b.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with pytest.raises(EOFError):
            a.recv()


def test_a_used_end_cannot_be_passed_on(ends):
    a, b = ends
    a.send(1)
    with pytest.raises(mk.NotOwner):
        pickle.dumps(a)
    assert b.recv() == 1


def test_an_unused_end_travels_through_a_pipe(ends):
    a, b = ends
    c, d = mk.Pipe()
    try:
        with c:
            a.send(d)
            with b.recv() as copy:
                d.close()
                c.send("hello")
                assert copy.recv() == "hello"
    finally:
        resource_sharer.stop()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_of_a_sender_killed_at_any_moment_a_prefix_arrives(method):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    rng = random.Random(seed)
    for _ in range(10):
        reader, writer = mk.Pipe(duplex=False)
        with reader:
            child = start(method, targets.send_until_killed, writer)
            writer.close()
            stop_at, count = rng.randrange(200), 0
            try:
                while True:
                    i, data = reader.recv()
                    assert (i, len(data)) == (count, i % 70_000)
                    count += 1
                    if count in (stop_at, 1_000):
                        child.kill()
            except EOFError:
                pass
            assert count >= stop_at
            child.kill()
            join(child, -signal.SIGKILL)
