"""faster-fifo: a queue in shared memory, behind a mutex."""

from __future__ import annotations

import faster_fifo
import faster_fifo_reduction  # noqa: F401 - its queues cannot be passed on without

from multikernel.tools.bench.channels import CAPACITY, Receive, ReceiveMany, Send, SendMany

_LONG = 60.0  # seconds; by default its calls give up after ten


class FasterFifoObjects:
    """Any object, pickled."""

    def __init__(self, _size: int) -> None:
        self._queue = faster_fifo.Queue(max_size_bytes=CAPACITY)

    def sender(self) -> Send:
        put = self._queue.put
        return lambda message: put(message, True, _LONG)

    def receiver(self) -> Receive:
        get = self._queue.get
        return lambda: get(True, _LONG)

    def close(self) -> None:
        self._queue.close()


class FasterFifo(FasterFifoObjects):
    """Bytes as they are."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._queue = faster_fifo.Queue(max_size_bytes=CAPACITY, loads=bytes, dumps=lambda message: message)

    def sender_many(self) -> SendMany:
        return lambda messages: self._queue.put_many(messages, True, _LONG)

    def receiver_many(self) -> ReceiveMany:
        return lambda limit: self._queue.get_many(True, _LONG, limit)
