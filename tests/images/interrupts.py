"""Counts the IPIs that come, by vector; tells when asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import multikernel as mk


def main(kernel: mk.Kernel) -> None:
    """Answer each message with the counts so far."""
    counts = [0] * 64

    def handler(vector: int, count: int) -> None:
        counts[vector] += count

    for vector in range(64):
        kernel.on_ipi(vector)(handler)
    for message in kernel.messages():
        message.reply(json.dumps(counts).encode())
