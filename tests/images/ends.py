"""Answers every message with itself, until one says how to end."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import multikernel as mk


def main(kernel: mk.Kernel) -> int:
    """Echo, and end as told."""
    for message in kernel.messages():
        match bytes(message.payload).split():
            case [b"return", code]:
                return int(code)
            case [b"raise"]:
                raise ValueError("as told")
            case [b"exit", code]:
                os._exit(int(code))
            case [b"signal"]:
                os.kill(os.getpid(), signal.SIGKILL)
        message.reply(message.payload)
    return 0
