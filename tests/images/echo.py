"""Answers every message with itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import multikernel as mk


def main(kernel: mk.Kernel) -> None:
    """Echo."""
    for message in kernel.messages():
        message.reply(message.payload)
