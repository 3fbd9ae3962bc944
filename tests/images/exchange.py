"""Two instances that send each other messages of random sizes, both at once, and check every one.

cmdline: "PEER COUNT SEED" for the one that connects, "COUNT SEED" for the one that is connected to. The first begins
when it is sent b"begin". Each answers the request b"done?" once it has sent and received COUNT.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import multikernel as mk

BATCH = 128
SIZES = (0, 1, 7, 8, 9, 63, 64, 65, 200, 1000, 4000)


def payloads(seed: str) -> Iterator[bytes]:
    """An endless stream that both sides can make: sizes and bytes from the seed, and a running number in each."""
    rng = random.Random(seed)
    bodies = [rng.randbytes(rng.choice(SIZES)) for _ in range(256)]
    number = 0
    while True:
        yield number.to_bytes(4, "little") + bodies[rng.randrange(256)]
        number += 1


def exchange(link: mk.Link, count: int, mine: str, theirs: str) -> None:
    """Send COUNT, receive COUNT, in batches; stop at the first message that is not the one that is due."""
    outgoing, due = payloads(mine), payloads(theirs)
    batch: list[bytes] = []
    sent = received = 0
    while sent < count or received < count:
        if not batch and sent < count:
            batch = [next(outgoing) for _ in range(min(BATCH, count - sent))]
        went = link.try_send_many(batch) if batch else 0
        sent += went
        del batch[:went]
        messages = link.try_recv_many(BATCH)
        for message in messages:
            expected = next(due)
            if message.payload != expected:
                raise AssertionError(f"message {received} is {message.payload!r}, expected {expected!r}")
            received += 1
        if not went and not messages and received < count:
            link.wait(timeout=30)


def main(kernel: mk.Kernel) -> int:
    """Exchange, then answer whoever asks."""
    assert os.sched_getaffinity(0) == set(kernel.cpus)
    words = kernel.cmdline.split()
    count, seed = int(words[-2]), words[-1]
    peer = kernel.connect(words[0], capacity="256K") if len(words) == 3 else None
    for message in kernel.messages():
        if message.payload == b"begin" and peer is not None:
            peer.send(b"begin")
            exchange(peer, count, f"{seed}-a", f"{seed}-b")
        elif message.payload == b"begin":
            assert message.link is not None
            exchange(message.link, count, f"{seed}-b", f"{seed}-a")
        else:
            message.reply(b"done")
    return 0
