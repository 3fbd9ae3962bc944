"""The images that the benches boot. As small as can be: what is measured is the way there and back."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multikernel import Kernel, Message

VECTOR = 1


def echo(kernel: Kernel) -> None:
    """Replies to each message with itself."""
    for message in kernel.messages():
        message.reply(message.payload)


def answer_interrupts(kernel: Kernel) -> None:
    """Replies to its first message whenever an IPI comes, with how many had been raised."""
    gc.disable()
    first: Message | None = None

    @kernel.on_ipi(VECTOR)
    def _(_vector: int, count: int) -> None:
        if first is not None:
            first.reply(count.to_bytes(4, "little"))

    for message in kernel.messages():
        first = first or message
