"""A dictionary that lives on a core of its own.

Shows: an instance that answers requests, message subtypes as verbs, an interrupt (IPI) that makes it report, and what
it prints on its console. One file is both: `main` is what the instance runs, `program` makes it and talks to it.

Run it:     python examples/kv.py
Look:       while it runs, `multikernel show kv-example` in another shell
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import multikernel as mk

if TYPE_CHECKING:
    from multikernel import Kernel, Link

PUT, GET, DELETE = 1, 2, 3  # subtypes of a request
FOUND, MISSING = 1, 2  # subtypes of a reply
REPORT = 5  # a vector
ZERO = b"\0"  # between key and value


def main(kernel: Kernel) -> None:
    """Inside the instance: serve until the host asks for a halt."""
    table: dict[bytes, bytes] = {}

    @kernel.on_ipi(REPORT)
    def report(vector: int, count: int) -> None:  # between two messages, never in the middle of one
        print(f"interrupted {count} times by vector {vector}: {len(table)} keys")

    for message in kernel.messages():
        key, _, value = bytes(message.payload).partition(ZERO)
        found = table.get(key)
        if message.subtype == PUT:
            table[key] = value
        elif message.subtype == DELETE:
            table.pop(key, None)
        message.reply(found or b"", subtype=MISSING if found is None else FOUND)


def ask(link: Link, verb: int, key: str, value: str = "") -> str | None:
    """One request: what the table had under `key` before; None if nothing."""
    reply = link.request(key.encode() + ZERO + value.encode(), subtype=verb, timeout=10)
    return bytes(reply.payload).decode() if reply.subtype == FOUND else None


def program() -> int:
    """Outside: make a machine with one instance, and use it. Returns the exit status."""
    with mk.Machine(name="kv-example") as machine:
        instance = machine.create("kv", memory="64M")
        instance.load(f"{__file__}:main")
        instance.boot()
        print(f"{instance.name} runs on cpu {instance.cpus[0]} as process {instance.pid}")
        with machine.connect("kv") as link:
            for number in range(1000):
                assert ask(link, PUT, f"key {number}", f"value {number}") is None
            assert ask(link, GET, "key 500") == "value 500"
            assert ask(link, DELETE, "key 500") == "value 500"
            assert ask(link, GET, "key 500") is None
            link.ipi(REPORT)
            assert ask(link, GET, "key 1") == "value 1"  # an IPI is handled before what is sent after it
        end = instance.halt()
        console = machine.proc["instances/kv/console"]
        print(f"its console: {console.strip()}")
        print(f"its end: {end.reason}, status {end.code}")
        return 0 if "999 keys" in console and end.reason == "halted" else 1


if __name__ == "__main__":
    sys.exit(program())
