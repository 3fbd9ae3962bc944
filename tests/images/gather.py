"""Asks two others at once, and waits for both."""

from __future__ import annotations

import multikernel as mk


def main(kernel: mk.Kernel) -> None:
    """For each message: what both made of it; of "silence": what had something, when nothing was asked."""
    peers = [kernel.connect(name) for name in ("one", "two")]
    for message in kernel.messages():
        if message.payload == b"silence":
            found = mk.wait(peers)
            message.reply(b",".join(link.peer_name.encode() for link in found))
            continue
        for link in peers:
            link.send(message.payload)
        answers: list[bytes] = []
        while len(answers) < len(peers):
            answers += [link.recv().payload for link in mk.wait(peers)]
        message.reply(b",".join(answers))
