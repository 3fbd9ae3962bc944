"""Two instances that talk to each other, and not through the program: which words does a text have, and how often?

Shows: one instance connecting to another (`kernel.connect`), batches of messages, and how to know that all that was
sent has been worked on: a request on the same link comes after what was sent on it before.

Run it:     python examples/pipeline.py
Try:        python examples/pipeline.py FILE
"""

from __future__ import annotations

import collections
import inspect
import json
import re
import sys
from typing import TYPE_CHECKING

import multikernel as mk

if TYPE_CHECKING:
    from multikernel import Kernel

WORDS, FLUSH, TOP = 1, 2, 3  # subtypes
WORD = re.compile(r"[A-Za-z]+")


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return [word.lower() for word in WORD.findall(text)]


def splitter(kernel: Kernel) -> None:
    """The first instance: reads the file that it is told, cuts it into words, and sends them on."""
    counter = kernel.connect("counter")
    for message in kernel.messages():
        if message.sender == counter.peer_id:
            continue  # nothing comes from there but replies, which `request` takes
        path = bytes(message.payload).decode()
        sent = 0
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                sent += counter.send_many([word.encode() for word in words(line)], subtype=WORDS)
        counter.request(b"", subtype=FLUSH)  # when it replies, it has counted all that went before
        message.reply(str(sent).encode())


def counter(kernel: Kernel) -> None:
    """The second instance: counts words, whoever sends them."""
    counts: collections.Counter[str] = collections.Counter()
    for message in kernel.messages():
        if message.subtype == WORDS:
            counts[bytes(message.payload).decode()] += 1
        elif message.subtype == FLUSH:
            message.reply(b"")
        elif message.subtype == TOP:
            message.reply(json.dumps(counts.most_common(int(bytes(message.payload)))).encode())


def program(path: str) -> int:
    """Make both, start the work, and compare with what one process counts. Returns the exit status."""
    with mk.Machine() as machine:
        for name in ("counter", "splitter"):  # with one cpu only they share it
            instance = machine.create(name, exclusive=False)
            instance.load(f"{__file__}:{name}")
            instance.boot(until="ready")
        with machine.connect("splitter") as link:
            try:
                sent = int(link.request(path.encode(), timeout=60).payload)
            except mk.Closed:  # it has ended, and its console says why
                print(machine.proc["instances/splitter/console"])
                return 1
        with machine.connect("counter") as link:
            top = json.loads(link.request(b"5", subtype=TOP).payload)
    with open(path, encoding="utf-8", errors="replace") as file:
        expected = collections.Counter(words(file.read()))
    print(f"{sent} words; the most common: {', '.join(f'{word} {count}' for word, count in top)}")
    right = sent == expected.total() and [count for _, count in top] == [n for _, n in expected.most_common(5)]
    print("one process counts the same" if right else f"one process counts {expected.most_common(5)}")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(program(sys.argv[1] if len(sys.argv) > 1 else inspect.__file__))
