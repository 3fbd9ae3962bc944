"""A stream of numbers from one instance to another that can be asked, at any time, how far it is.

cmdline "to PEER": sends 0, 1, 2 ... to PEER; asked by a client with b"stop" it ends, and replies how many it has sent.
cmdline "": takes them and raises when one is missing, twice or out of order; replies to a client how many it has taken.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import multikernel as mk

BATCH = 64
CLIENTS = 512  # the first id of a client


def send(kernel: mk.Kernel, peer: mk.Link) -> None:
    """Send until a client says stop; then serve clients only."""
    numbers = itertools.count()
    batch: list[bytes] = []
    sent = 0
    while not kernel.halting:
        if not batch:
            batch = [next(numbers).to_bytes(8, "little") for _ in range(BATCH)]
        went = peer.try_send_many(batch)
        sent += went
        del batch[:went]
        for message in kernel.messages(timeout=0 if went else 0.001):
            message.reply(str(sent).encode())
            if message.payload == b"stop":
                return


def take(kernel: mk.Kernel) -> None:
    """Take until halted."""
    due = 0
    for message in kernel.messages():
        if message.sender >= CLIENTS:
            message.reply(str(due).encode())
            continue
        number = int.from_bytes(message.payload, "little")
        if number != due:
            raise AssertionError(f"message {number} came when {due} was due")
        due += 1


def main(kernel: mk.Kernel) -> None:
    """One of the two."""
    words = kernel.cmdline.split()
    if words:
        send(kernel, kernel.connect(words[1]))
        for message in kernel.messages():
            message.reply(b"stopped")
    else:
        take(kernel)
