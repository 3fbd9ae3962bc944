"""Typing to an instance: what it reads as its standard input."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Self

from multikernel.errors import Closed, Timeout

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Input:
    """Made by `Instance.attach`; `with` detaches.

    The instance reads what is written here, in that order. A pipe of 64 KiB is between: what it does not read waits
    there, and then here.
    """

    def __init__(self, fd: int, name: str, detach: Callable[[], None]) -> None:
        os.set_blocking(fd, False)
        self._fd, self._name, self._detach = fd, name, detach

    def try_write(self, data: bytes) -> int:
        """Write what there is room for, without waiting; how many bytes that were.

        Raises:
            Closed: the incarnation has ended, or this was closed.
        """
        if self._fd < 0:
            raise Closed("this input was closed here")
        try:
            return os.write(self._fd, data) if data else 0
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            raise Closed(f"{self._name!r} reads no more: the incarnation that was attached to has ended") from None

    def write(self, data: bytes, timeout: float | None = None) -> None:
        """Write all of it; waits while the instance does not read.

        Raises:
            Timeout: it made no room within `timeout` seconds. `sent` says how many bytes were written.
            Closed: as `try_write`; `sent` likewise.
        """
        until = None if timeout is None else time.monotonic() + timeout
        sent = 0
        try:
            while (sent := sent + self.try_write(data[sent:])) < len(data):
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                left = None if until is None else max(until - time.monotonic(), 0.0) * 1000
                if not poll.poll(left):
                    raise Timeout(f"{self._name!r} has read nothing within {timeout:g} s", timeout=timeout)
        except (Closed, Timeout) as error:
            error.sent = sent
            raise

    def fileno(self) -> int:
        """Writable while there is room, or the instance has ended; -1: closed."""
        return self._fd

    def close(self) -> None:
        """Detach: somebody else can attach then. The instance sees nothing of it. Twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            self._detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
