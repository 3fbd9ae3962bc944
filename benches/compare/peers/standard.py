"""Peers that every Python has, beside those that `multikernel bench` uses."""

from __future__ import annotations

import multiprocessing
import os
import socket
from functools import partial

from multikernel.tools.bench.channels import CAPACITY, Receive, Send
from multikernel.tools.bench.plain import MpPipe, OsPipe

_context = multiprocessing.get_context("fork")


class SeqPacket:
    """A pair of Unix sockets that keep messages apart."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._sending, self._receiving = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CAPACITY)  # as much of it as the system gives

    def sender(self) -> Send:
        return self._sending.send

    def receiver(self) -> Receive:
        return partial(self._receiving.recv, self._size)

    def close(self) -> None:
        self._sending.close()
        self._receiving.close()


class MpQueue:
    """A multiprocessing.Queue: any object, pickled in a thread."""

    def __init__(self, size: int) -> None:
        self._queue = _context.Queue(max(1, CAPACITY // size))

    def sender(self) -> Send:
        return self._queue.put

    def receiver(self) -> Receive:
        return self._queue.get

    def close(self) -> None:
        self._queue.close()
        self._queue.join_thread()


class MpSimpleQueue:
    """A multiprocessing.SimpleQueue: any object, pickled, without a thread."""

    def __init__(self, _size: int) -> None:
        self._queue = _context.SimpleQueue()

    def sender(self) -> Send:
        return self._queue.put

    def receiver(self) -> Receive:
        return self._queue.get

    def close(self) -> None:
        self._queue.close()


class MpObjectPipe(MpPipe):
    """A multiprocessing.Pipe, with any object, pickled."""

    def sender(self) -> Send:
        return self.sending.send

    def receiver(self) -> Receive:
        return self.receiving.recv


class LongPipe(OsPipe):
    """An os.pipe for messages that are longer than what it holds."""

    def sender(self) -> Send:
        return self.write_all

    def receiver(self) -> Receive:
        def receive() -> bytearray:
            whole = bytearray(self.size)
            rest = memoryview(whole)
            while rest:
                rest = rest[os.readv(self.reading, [rest]) :]
            return whole

        return receive
