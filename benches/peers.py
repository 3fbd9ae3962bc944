"""Who takes part, in tables of context managers with one interface.

Each is given the two cpus and what to send, and yields `Work`: one call does the work once, between this process,
pinned to the first cpu, and another, pinned to the second, and returns the seconds of one operation. Every message is
compared with what it should be; a wrong one raises.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import multikernel as mk
from benches.partner import partner, pinned

if TYPE_CHECKING:
    from benches.measure import Work

PREPARED = 256
"""Different messages, sent in turn."""

CAPACITY = "1M"
"""Of a ring: room enough that a burst of the sender's does not stop at once. A pipe's is made as large."""

Cpus = tuple[int, int]


def prepared(size: int) -> list[bytes]:
    """Messages of `size` bytes, each another one."""
    return [bytes((i + j) & 0xFF for j in range(size)) for i in range(PREPARED)]


class Wrong(AssertionError):
    """Something else arrived than was sent."""


# --- one way: as many messages as there are in `rounds` times PREPARED


def stream(cpus: Cpus, rounds: int, send: Callable[[bytes], object], receive: Callable[[], bytes], size: int) -> Any:
    """`Work` of a stream, one message a call."""
    messages = prepared(size)

    def send_all() -> None:
        for _ in range(rounds):
            for message in messages:
                send(message)

    def receive_all(n: int) -> int:
        right = 0
        for _ in range(n):
            for message in messages:
                right += receive() == message
        return right

    return one_way(cpus, rounds, send_all, receive_all)


def batches(
    cpus: Cpus,
    rounds: int,
    send_many: Callable[[list[bytes]], object],
    receive_many: Callable[[int], list[bytes]],
    size: int,
) -> Any:
    """`Work` of a stream, PREPARED messages a call. `receive_many` may return fewer than it is asked for."""
    messages = prepared(size)

    def send_all() -> None:
        for _ in range(rounds):
            send_many(messages)

    def receive_all(n: int) -> int:
        right = 0
        for _ in range(n):
            start = 0
            while start < PREPARED:
                found = receive_many(PREPARED - start)
                expected = messages[start : start + len(found)] if len(found) < PREPARED else messages
                right += len(found) if found == expected else 0
                start += len(found)
        return right

    return one_way(cpus, rounds, send_all, receive_all)


@contextmanager
def one_way(cpus: Cpus, rounds: int, send_all: Callable[[], None], receive_all: Callable[[int], int]) -> Iterator[Work]:
    with partner(cpus[1], receive_all) as start, pinned(cpus[0]):

        def work() -> float:
            other = start(rounds)  # it is ready now: both begin together
            began = time.perf_counter()
            send_all()
            right = other.result()
            took = time.perf_counter() - began
            if right != rounds * PREPARED:
                raise Wrong(f"{right} of {rounds * PREPARED} messages arrived as they were sent")
            return took / (rounds * PREPARED)

        yield work


# --- there and back


@contextmanager
def round_trip(
    cpus: Cpus, rounds: int, here: Callable[[bytes], bytes], there: Callable[[int], object], size: int
) -> Iterator[Work]:
    """`Work` of sending a message and waiting for its echo. `here` does one round, `there` all of the other side's."""
    messages = prepared(size)

    with partner(cpus[1], there) as start, pinned(cpus[0]):

        def work() -> float:
            other = start(rounds * PREPARED)
            began = time.perf_counter()
            right = 0
            for _ in range(rounds):
                for message in messages:
                    right += here(message) == message
            took = time.perf_counter() - began
            other.result()
            if right != rounds * PREPARED:
                raise Wrong(f"{right} of {rounds * PREPARED} echoes were right")
            return took / (rounds * PREPARED)

        yield work


def _echo(receive: Callable[[], bytes], send: Callable[[bytes], object]) -> Callable[[int], None]:
    def serve(n: int) -> None:
        for _ in range(n):
            send(receive())

    return serve


def _ask(send: Callable[[bytes], object], receive: Callable[[], bytes]) -> Callable[[bytes], bytes]:
    def here(message: bytes) -> bytes:
        send(message)
        return receive()

    return here


# --- the transports: each yields ways to send and to receive


@contextmanager
def ring(wait: str = "adaptive") -> Iterator[tuple[mk.Sender, mk.Receiver]]:
    """Both ends of a ring; each is claimed by the process that uses it first."""
    with mk.Ring(CAPACITY) as made:
        yield made.sender(wait=wait), made.receiver(wait=wait)


@contextmanager
def pipe(*, blocking: bool = True) -> Iterator[tuple[int, int]]:
    """Writing and reading descriptor of an os.pipe as large as our rings."""
    reading, writing = os.pipe()
    try:
        _enlarge(writing)
        os.set_blocking(reading, blocking)
        yield writing, reading
    finally:
        os.close(reading)
        os.close(writing)


def _enlarge(descriptor: int) -> None:
    import fcntl

    try:
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 1 << 20)
    except PermissionError:  # the user's pipes together are as large as they may be
        return


@contextmanager
def connection() -> Iterator[tuple[Any, Any]]:
    """Sending and receiving end of a multiprocessing.Pipe of one direction."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    try:
        yield sending, receiving
    finally:
        sending.close()
        receiving.close()


# --- message


@contextmanager
def ring_stream(cpus: Cpus, rounds: int, size: int) -> Iterator[Work]:
    with ring() as (tx, rx), stream(cpus, rounds, tx.send, rx.recv, size) as work:
        yield work


@contextmanager
def pipe_stream(cpus: Cpus, rounds: int, size: int) -> Iterator[Work]:
    """No framing: the size is known, and such small writes are never torn."""
    with (
        pipe() as (writing, reading),
        stream(cpus, rounds, partial(os.write, writing), partial(os.read, reading, size), size) as work,
    ):
        yield work


@contextmanager
def connection_stream(cpus: Cpus, rounds: int, size: int) -> Iterator[Work]:
    with (
        connection() as (sending, receiving),
        stream(cpus, rounds, sending.send_bytes, receiving.recv_bytes, size) as work,
    ):
        yield work


STREAMS = {"os.pipe": pipe_stream, "multiprocessing.Pipe": connection_stream}


# --- batch


@contextmanager
def ring_batches(cpus: Cpus, rounds: int, size: int) -> Iterator[Work]:
    with ring() as (tx, rx), batches(cpus, rounds, tx.send_many, rx.recv_many, size) as work:
        yield work


@contextmanager
def pipe_batches(cpus: Cpus, rounds: int, size: int) -> Iterator[Work]:
    """Joined before they are written, cut after they were read."""
    with pipe() as (writing, reading):

        def send_many(messages: list[bytes]) -> None:
            rest = memoryview(b"".join(messages))
            while rest:
                rest = rest[os.write(writing, rest) :]

        def receive_many(limit: int) -> list[bytes]:
            whole = os.read(reading, limit * size)
            while len(whole) % size:
                whole += os.read(reading, size - len(whole) % size)
            return [whole[i : i + size] for i in range(0, len(whole), size)]

        with batches(cpus, rounds, send_many, receive_many, size) as work:
            yield work


@contextmanager
def connection_batches(cpus: Cpus, rounds: int, size: int) -> Iterator[Work]:
    """A list a call, pickled."""
    with connection() as (sending, receiving):

        def receive_many(_limit: int) -> list[bytes]:
            found: list[bytes] = receiving.recv()
            return found

        with batches(cpus, rounds, sending.send, receive_many, size) as work:
            yield work


BATCHES = {"os.pipe": pipe_batches, "multiprocessing.Pipe": connection_batches}


# --- arrays: batches of 64-byte elements


ELEMENT = 64


def _arrays(cpus: Cpus, rounds: int, send: Callable[[Any], object], receive_into: Callable[[Any], int]) -> Any:
    """`receive_into` fills an array from its start and returns how many elements it filled."""
    import numpy as np

    array = np.arange(PREPARED * ELEMENT // 8, dtype=np.uint64).reshape(PREPARED, ELEMENT // 8)
    room = np.empty_like(array)

    def send_all() -> None:
        for _ in range(rounds):
            send(array)

    def receive_all(n: int) -> int:
        right = 0
        for _ in range(n):
            start = 0
            while start < PREPARED:
                start += receive_into(room[start:])
            right += PREPARED if np.array_equal(room, array) else 0
            room.fill(0)
        return right

    return one_way(cpus, rounds, send_all, receive_all)


@contextmanager
def ring_arrays(cpus: Cpus, rounds: int) -> Iterator[Work]:
    with mk.Ring(CAPACITY, dtype="u8", shape=(ELEMENT // 8,)) as made:
        tx, rx = made.sender(), made.receiver()
        with _arrays(cpus, rounds, tx.send_many, rx.recv_into) as work:
            yield work


@contextmanager
def pipe_arrays(cpus: Cpus, rounds: int) -> Iterator[Work]:
    with pipe() as (writing, reading):

        def send(array: Any) -> None:
            rest = memoryview(array).cast("B")
            while rest:
                rest = rest[os.write(writing, rest) :]

        def receive_into(room: Any) -> int:
            rest = memoryview(room).cast("B")
            while rest:
                rest = rest[os.readv(reading, [rest]) :]
            return len(room)

        with _arrays(cpus, rounds, send, receive_into) as work:
            yield work


@contextmanager
def connection_arrays(cpus: Cpus, rounds: int) -> Iterator[Work]:
    with connection() as (sending, receiving):

        def receive_into(room: Any) -> int:
            return int(receiving.recv_bytes_into(memoryview(room).cast("B"))) // ELEMENT

        with _arrays(cpus, rounds, sending.send_bytes, receive_into) as work:
            yield work


ARRAYS = {"os.pipe": pipe_arrays, "multiprocessing.Pipe": connection_arrays}


# --- round trips: two of each transport, one a direction


@contextmanager
def ring_echo(cpus: Cpus, rounds: int, size: int, *, wait: str) -> Iterator[Work]:
    with (
        ring(wait) as (out, heard),
        ring(wait) as (back, echoed),
        round_trip(cpus, rounds, _ask(out.send, echoed.recv), _echo(heard.recv, back.send), size) as work,
    ):
        yield work


@contextmanager
def pipe_echo(cpus: Cpus, rounds: int, size: int) -> Iterator[Work]:
    with pipe() as (out, heard), pipe() as (back, echoed):
        here = _ask(partial(os.write, out), partial(os.read, echoed, size))
        there = _echo(partial(os.read, heard, size), partial(os.write, back))
        with round_trip(cpus, rounds, here, there, size) as work:
            yield work


@contextmanager
def pipe_spinning_echo(cpus: Cpus, rounds: int, size: int) -> Iterator[Work]:
    """Reads without blocking until something is there."""

    def spin(descriptor: int) -> bytes:
        while True:
            try:
                return os.read(descriptor, size)
            except BlockingIOError:
                continue

    with pipe(blocking=False) as (out, heard), pipe(blocking=False) as (back, echoed):
        here = _ask(partial(os.write, out), partial(spin, echoed))
        there = _echo(partial(spin, heard), partial(os.write, back))
        with round_trip(cpus, rounds, here, there, size) as work:
            yield work


@contextmanager
def connection_echo(cpus: Cpus, rounds: int, size: int) -> Iterator[Work]:
    with connection() as (out, heard), connection() as (back, echoed):
        here = _ask(out.send_bytes, echoed.recv_bytes)
        there = _echo(heard.recv_bytes, back.send_bytes)
        with round_trip(cpus, rounds, here, there, size) as work:
            yield work


@contextmanager
def connection_spinning_echo(cpus: Cpus, rounds: int, size: int) -> Iterator[Work]:
    """Polls until something is there."""

    def spin(receiving: Any) -> bytes:
        while not receiving.poll():
            continue
        found: bytes = receiving.recv_bytes()
        return found

    with connection() as (out, heard), connection() as (back, echoed):
        here = _ask(out.send_bytes, partial(spin, echoed))
        there = _echo(partial(spin, heard), back.send_bytes)
        with round_trip(cpus, rounds, here, there, size) as work:
            yield work


@contextmanager
def eventfd_echo(cpus: Cpus, rounds: int, size: int) -> Iterator[Work]:
    """Two os.eventfds: a wake-up each way and no payload, so the least that blocking costs."""
    with ExitStack() as opened:
        out, back = os.eventfd(0), os.eventfd(0)
        opened.callback(os.close, out)
        opened.callback(os.close, back)

        def here(message: bytes) -> bytes:
            os.eventfd_write(out, 1)
            return message if os.eventfd_read(back) == 1 else b""

        def there(n: int) -> None:
            for _ in range(n):
                os.eventfd_write(back, os.eventfd_read(out))

        with round_trip(cpus, rounds, here, there, size) as work:
            yield work


SPINNING = {"os.pipe": pipe_spinning_echo, "multiprocessing.Pipe": connection_spinning_echo}
BLOCKING = {"os.pipe": pipe_echo, "multiprocessing.Pipe": connection_echo, "os.eventfd": eventfd_echo}
