"""Channels that every Python has: what ours are compared with. See `channels`."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from .channels import CAPACITY, Receive, ReceiveMany, Send, SendMany


class OsPipe:
    """An os.pipe without any framing: the size is known, and such small writes are never torn."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.reading, self.writing = os.pipe()
        with contextlib.suppress(PermissionError):  # the user's pipes together are as large as they may be
            fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, CAPACITY)

    def sender(self) -> Send:
        """`os.write`."""
        return partial(os.write, self.writing)

    def receiver(self) -> Receive:
        """`os.read`."""
        return partial(os.read, self.reading, self.size)

    def sender_many(self) -> SendMany:
        """Joined before they are written."""
        return lambda messages: self.write_all(b"".join(messages))

    def receiver_many(self) -> ReceiveMany:
        """Cut after they were read."""
        reading, size = self.reading, self.size

        def receive_many(limit: int) -> list[bytes]:
            whole = os.read(reading, limit * size)
            while len(whole) % size:
                whole += os.read(reading, size - len(whole) % size)
            return [whole[i : i + size] for i in range(0, len(whole), size)]

        return receive_many

    def array_sender(self) -> Send:
        """The array's memory, written."""
        return lambda array: self.write_all(memoryview(array).cast("B"))

    def array_receiver(self) -> Callable[[Any], int]:
        """Read into the array's memory, until it is full."""

        def receive_into(room: Any) -> int:
            rest = memoryview(room).cast("B")
            while rest:
                rest = rest[os.readv(self.reading, [rest]) :]
            return len(room)

        return receive_into

    def write_all(self, data: bytes | memoryview) -> None:
        """All of it, in as many calls as it takes."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.writing, rest) :]

    def close(self) -> None:
        """Both descriptors."""
        os.close(self.reading)
        os.close(self.writing)


class PollingPipe(OsPipe):
    """An os.pipe that is read without blocking until something is there."""

    def receiver(self) -> Receive:
        """`os.read`, again and again."""
        reading, size = self.reading, self.size
        os.set_blocking(reading, False)

        def receive() -> bytes:
            while True:
                try:
                    return os.read(reading, size)
                except BlockingIOError:
                    continue

        return receive


class MpPipe:
    """A multiprocessing.Pipe of one direction, with bytes."""

    def __init__(self, _size: int) -> None:
        self.receiving, self.sending = multiprocessing.Pipe(duplex=False)

    def sender(self) -> Send:
        """`send_bytes`."""
        return self.sending.send_bytes

    def receiver(self) -> Receive:
        """`recv_bytes`."""
        return self.receiving.recv_bytes

    def sender_many(self) -> SendMany:
        """A list a call, pickled."""
        return self.sending.send

    def receiver_many(self) -> ReceiveMany:
        """The list that was sent."""
        return lambda _limit: self.receiving.recv()

    def array_sender(self) -> Send:
        """The array's memory, by `send_bytes`."""
        return self.sending.send_bytes

    def array_receiver(self) -> Callable[[Any], int]:
        """`recv_bytes_into`."""

        def receive_into(room: Any) -> int:
            return self.receiving.recv_bytes_into(memoryview(room).cast("B")) // int(room[0].nbytes)

        return receive_into

    def close(self) -> None:
        """Both ends."""
        self.sending.close()
        self.receiving.close()


class PollingMpPipe(MpPipe):
    """A multiprocessing.Pipe that is polled until something is there."""

    def receiver(self) -> Receive:
        """`poll`, again and again."""
        poll, receive_bytes = self.receiving.poll, self.receiving.recv_bytes

        def receive() -> bytes:
            while not poll():
                continue
            return receive_bytes()

        return receive


class Eventfd:
    """An os.eventfd: a wake-up and no payload, so the least that blocking costs. Its messages are the number 1."""

    def __init__(self, _size: int) -> None:
        self._descriptor = os.eventfd(0)

    def sender(self) -> Send:
        """`os.eventfd_write`."""
        return partial(os.eventfd_write, self._descriptor)

    def receiver(self) -> Receive:
        """`os.eventfd_read`: what was written since the last one."""
        return partial(os.eventfd_read, self._descriptor)

    def close(self) -> None:
        """The descriptor."""
        os.close(self._descriptor)


class Semaphore:
    """A multiprocessing.Semaphore: no payload either. Its messages are True."""

    def __init__(self, _size: int) -> None:
        self._semaphore = multiprocessing.get_context("fork").Semaphore(0)

    def sender(self) -> Send:
        """`release`."""
        return lambda _: self._semaphore.release()

    def receiver(self) -> Receive:
        """`acquire`."""
        return self._semaphore.acquire

    def close(self) -> None:
        """Nothing: it goes with the object."""


class Signal:
    """A signal to a process that waits for it. Its messages are the signal's number."""

    NUMBER = signal.SIGUSR1

    def __init__(self, _size: int) -> None:
        self._told = OsPipe(4)

    def sender(self) -> Send:
        """`os.kill`; the receiver has to have opened its end, which says whom."""
        pids: list[int] = []

        def send(number: int) -> None:
            if not pids:
                pids.append(int.from_bytes(os.read(self._told.reading, 4), "little"))
            os.kill(pids[0], number)

        return send

    def receiver(self) -> Receive:
        """`signal.sigwait`. The signal is blocked from now on in this process."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {self.NUMBER})
        os.write(self._told.writing, os.getpid().to_bytes(4, "little"))
        return partial(signal.sigwait, {self.NUMBER})

    def close(self) -> None:
        """The pipe that said whom."""
        self._told.close()
