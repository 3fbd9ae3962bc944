"""Many senders and one receiver, and the other way round, as `Work` for benches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import multikernel as mk
from benches.partner import partner, pinned
from benches.peers import CAPACITY, PREPARED, Cpus, Wrong, prepared

if TYPE_CHECKING:
    from benches.measure import Work


def send_rounds(tx: mk.Sender, messages: list[bytes], *, batches: bool) -> Callable[[int], None]:
    """Sends all messages, so often as it is told."""

    def serve(rounds: int) -> None:
        for _ in range(rounds):
            if batches:
                tx.send_many(messages)
            else:
                for message in messages:
                    tx.send(message)

    return serve


@contextmanager
def fan_in(cpus: Cpus, senders: int, rounds: int, size: int, *, batches: bool) -> Iterator[Work]:
    """`rounds` times PREPARED messages from `senders` processes on the second cpu to this one, on the first."""
    messages = prepared(size)
    each = rounds // senders

    with ExitStack() as stack:
        box = stack.enter_context(mk.Mailbox(CAPACITY))
        starts = []
        for _ in range(senders):
            tx = box.sender()
            starts.append(stack.enter_context(partner(cpus[1], send_rounds(tx, messages, batches=batches))))
        rx = stack.enter_context(box.receiver())
        stack.enter_context(pinned(cpus[0]))

        def work() -> float:
            next_of = [0] * senders
            left = each * senders * PREPARED
            others = [start(each) for start in starts]
            began = time.perf_counter()
            while left:
                found = rx.recv_many_from(PREPARED) if batches else [rx.recv_from()]
                left -= len(found)
                for sender, payload in found:
                    if payload != messages[next_of[sender]]:
                        raise Wrong(f"not message {next_of[sender]} of sender {sender}")
                    next_of[sender] = (next_of[sender] + 1) % PREPARED
            took = time.perf_counter() - began
            for other in others:
                other.result()
            return took / (each * senders * PREPARED)

        yield work
