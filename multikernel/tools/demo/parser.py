"""The image of `parser`: parses what it is sent, where it lies in the ring, and replies with what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .counting import count
from .words import pack_counts, split_file

if TYPE_CHECKING:
    from multikernel import Kernel

WARNING = 4


def main(kernel: Kernel) -> None:
    """Serve until the host asks for a halt."""
    for message in kernel.messages(copy=False):
        view = memoryview(message.payload)
        number, name, start = split_file(view)
        with view[start:] as source:
            counts = count(source)
        view.release()  # the next message is only given when nothing made from this one is left
        if counts.reason:
            kernel.log(f"{name}: {counts.reason}", WARNING)
        message.reply(pack_counts(number, counts))
