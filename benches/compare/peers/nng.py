"""pynng: nng over a Unix socket."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

import pynng

from multikernel.tools.bench.channels import CAPACITY, Receive, Send


class Nng:
    """PAIR to PAIR. Each side has threads of nng's own, on the same cpu."""

    def __init__(self, size: int) -> None:
        self._directory = tempfile.mkdtemp(prefix="mk-bench-")
        self._messages = min(max(1, CAPACITY // size), 8192)  # as many as nng takes
        self._opened: list[Any] = []

    def sender(self) -> Send:
        socket = self._socket()
        socket.listen(self._address)
        return socket.send

    def receiver(self) -> Receive:
        socket = self._socket()
        socket.dial(self._address, block=False)  # again and again, until somebody listens
        return socket.recv

    @property
    def _address(self) -> str:
        return f"ipc://{self._directory}/socket"

    def _socket(self) -> Any:
        socket = pynng.Pair0(
            send_buffer_size=self._messages, recv_buffer_size=self._messages, recv_max_size=2 * CAPACITY
        )
        self._opened.append(socket)
        return socket

    def close(self) -> None:
        for socket in self._opened:
            socket.close()
        shutil.rmtree(self._directory, ignore_errors=True)
