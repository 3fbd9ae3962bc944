"""pyzmq: ZeroMQ over a Unix socket."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

import zmq

from multikernel.tools.bench.channels import CAPACITY, Receive, Send


class ZeroMq:
    """PUSH to PULL. Each side has a thread of ZeroMQ's own, on the same cpu."""

    def __init__(self, size: int) -> None:
        self._directory = tempfile.mkdtemp(prefix="mk-bench-")
        self._messages = max(1, CAPACITY // size)
        self._opened: list[Any] = []  # context and socket, of the process that opened them

    def sender(self) -> Send:
        socket = self._socket(zmq.PUSH)
        socket.bind(self._address)
        return socket.send

    def receiver(self) -> Receive:
        socket = self._socket(zmq.PULL)
        socket.connect(self._address)
        return socket.recv

    @property
    def _address(self) -> str:
        return f"ipc://{self._directory}/socket"

    def _socket(self, kind: int) -> Any:
        context = zmq.Context()
        socket = context.socket(kind)
        socket.set_hwm(self._messages)
        self._opened = [socket, context]
        return socket

    def close(self) -> None:
        for opened in self._opened:
            opened.close(linger=0) if isinstance(opened, zmq.Socket) else opened.term()
        shutil.rmtree(self._directory, ignore_errors=True)
