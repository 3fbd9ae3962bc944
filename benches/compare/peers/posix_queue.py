"""posix_ipc: the message queues of POSIX (mq_overview(7))."""

from __future__ import annotations

import os

import posix_ipc

from multikernel.tools.bench.channels import Receive, Send


class PosixQueue:
    """A queue with as many messages as an ordinary user may have in one: ten, unless root has said otherwise."""

    def __init__(self, size: int) -> None:
        self._queue = posix_ipc.MessageQueue(
            f"/multikernel-bench-{os.getpid()}", posix_ipc.O_CREX, max_message_size=size
        )
        self._queue.unlink()  # the descriptor is enough, and forked with us

    def sender(self) -> Send:
        return self._queue.send

    def receiver(self) -> Receive:
        receive = self._queue.receive
        return lambda: receive()[0]  # the other is the priority

    def close(self) -> None:
        self._queue.close()
