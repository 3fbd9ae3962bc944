"""Does what it is told by messages; peer.c is the same in C, and who talks to one cannot tell which it is."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import multikernel as mk

if TYPE_CHECKING:
    from multikernel import Kernel, Link


def main(kernel: Kernel) -> int:
    """Serve until told to end."""
    counts: dict[int, int] = {}
    links: dict[str, Link] = {}

    def count(vector: int, times: int) -> None:
        counts[vector] = counts.get(vector, 0) + times

    for vector in range(64):
        kernel.on_ipi(vector)(count)
    sys.stdout.write(f"{kernel.name} is instance {kernel.id} of {kernel.machine}\n")
    for message in kernel.messages():
        verb, _, rest = bytes(message.payload).decode(errors="replace").partition(" ")
        if verb == "who":
            message.reply(f"{kernel.id} {kernel.name} {kernel.epoch} {kernel.budget} {kernel.cmdline}".encode())
        elif verb == "counts":
            message.reply(" ".join(f"{vector}:{counts[vector]}" for vector in sorted(counts)).encode())
        elif verb == "ask":
            name, _, text = rest.partition(" ")
            try:
                if name not in links:
                    links[name] = kernel.connect(name, capacity="64K")
                answer = links[name].request(text.encode(), timeout=10)
                message.reply(answer.payload, type=answer.type, subtype=answer.subtype)
            except mk.MultikernelError as error:
                message.reply(f"error: {error}".encode())
        elif verb == "tell":
            name, _, text = rest.partition(" ")
            if name not in links:
                links[name] = kernel.connect(name, capacity="64K")
            links[name].send(text.encode(), type=0x5000, subtype=7)
            message.reply(b"told")
        elif verb == "poke":
            name, _, vector = rest.partition(" ")
            links[name].ipi(int(vector))
            message.reply(b"poked")
        elif verb == "interrupt":
            assert message.link is not None
            message.link.ipi(int(rest))
            message.reply(b"done")
        elif verb == "first":
            assert message.link is not None
            message.link.send(b"one")
            message.link.send(b"two", type=0x5000, subtype=3)
            message.reply(b"three")
        elif verb == "print":
            sys.stdout.write(f"{rest}\n")
            message.reply(b"printed")
        elif verb == "exit":
            return int(rest)
        elif verb == "crash" and not message.redelivered:
            os.kill(os.getpid(), signal.SIGSEGV)
        elif verb == "memory":
            memory = kernel.memory(rest, 4096).cast("Q")
            memory[0] += 1
            message.reply(b"%d" % memory[0])
        elif verb == "readlink":
            try:
                message.reply(os.readlink(rest).encode())
            except OSError:
                message.reply(b"(none)")
        elif verb != "silence":
            message.reply(message.payload, type=message.type, subtype=message.subtype)
    return 0
