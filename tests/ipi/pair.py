"""Two parties joined by hand, as the host does it: each makes its own half, descriptors travel over channels."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from multikernel.ipi.half import LinkHalf
from multikernel.shm.channel import Channel
from tests.shm.children import LIMIT, Child, Words

if TYPE_CHECKING:
    import multikernel as mk

OURS, THEIRS = 600, 5  # ids: a client, an instance


def descriptors(channel: Channel) -> list[int]:
    received = channel.receive(timeout=LIMIT)
    assert received is not None
    return received[1]


@contextmanager
def joined(
    work: Callable[[mk.Link, Words], object], *, capacity: int = 65536, **other: Any
) -> Iterator[tuple[mk.Link, Child]]:
    """A link, and the process at its other end, which does `work` with its own and closes it."""
    here, there = Channel.pair()

    def serve(words: Words) -> None:
        here.close()
        parent = os.getppid()
        half = LinkHalf.create(capacity, THEIRS, 1)
        there.send({}, half.descriptors())
        *objects, bell = descriptors(there)
        link = half.attach(
            objects, socket_fd=bell, pidfd=os.pidfd_open(parent), peer_id=OURS, peer_name="the test", peer_epoch=0
        )
        there.close()
        with link:
            work(link, words)

    with Child(serve) as child:
        there.close()
        half = LinkHalf.create(capacity, OURS, 0)
        ours, theirs = socket.socketpair()
        here.send({}, [*half.descriptors(), theirs.fileno()])
        theirs.close()
        objects = descriptors(here)
        here.close()
        link = half.attach(
            objects,
            socket_fd=ours.detach(),
            pidfd=os.pidfd_open(child.pid),
            peer_id=THEIRS,
            peer_name="child",
            peer_epoch=1,
            **other,
        )
        try:
            yield link, child
        finally:
            link.close()


def echo(link: mk.Link, words: Words) -> None:
    """Replies to every message with what it brought."""
    for message in link:
        message.reply(message.payload, type=message.type, subtype=message.subtype)


@dataclass
class Tally:
    """Counts what handlers were told."""

    counts: dict[int, int] = field(default_factory=dict)
    calls: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, vector: int, count: int) -> None:
        self.calls.append((vector, count))
        self.counts[vector] = self.counts.get(vector, 0) + count

    def on(self, link: mk.Link, vectors: range = range(64)) -> Tally:
        for vector in vectors:
            link.on_ipi(vector, self)
        return self
