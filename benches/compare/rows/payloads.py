"""M11: messages of a megabyte, copied in and out, and written and read where they lie."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cache
from typing import Any

from benches.compare import peers
from benches.compare.peers import Peers
from benches.compare.rows import Goal, Planned, Row
from multikernel.tools.bench.cases import OURS
from multikernel.tools.bench.channels import RingChannel
from multikernel.tools.bench.compare import Case, Contender
from multikernel.tools.bench.sides import Cpus, Run, Tally, Work, measured
from multikernel.tools.bench.work import stream

SIZE = 1 << 20
MESSAGES = 5  # different ones; no ring has room for as many or for a multiple of them
AS_MANY = 4 * SIZE
"""Bytes of a ring with room for three messages: as many as iceoryx2 has under way, two that wait and one in work."""


@cache
def messages() -> list[bytes]:
    """Not to be told from each other by their first bytes only."""
    return [random.Random(number).randbytes(SIZE) for number in range(MESSAGES)]


class SpinningRing(RingChannel):
    """`send` and `recv` that look until there is room or a message, as iceoryx2 does here."""

    def __init__(self, size: int) -> None:
        super().__init__(size, "spin", AS_MANY)


class RingPlaces(SpinningRing):
    """`reserve` and `peek`, likewise."""

    def place_sender(self) -> Callable[[Callable[[memoryview], object]], None]:
        reserve = self.tx.reserve

        def send(fill: Callable[[memoryview], object]) -> None:
            with reserve(SIZE) as view:
                fill(view)

        return send

    def place_receiver(self) -> Callable[[Callable[[memoryview], Any]], Any]:
        peek = self.rx.peek

        def receive(use: Callable[[memoryview], Any]) -> Any:
            with peek() as view:
                return use(view)

        return receive


@contextmanager
def in_place(cpus: Cpus, channel: Any) -> Iterator[Work]:
    """The sender fills the room of each message by one copy, the receiver compares it where it lies.

    It compares words: what numpy makes of a comparison has a byte for each, and would be as long as the message.
    """
    import numpy as np

    sources = [np.frombuffer(message, np.uint64) for message in messages()]

    @contextmanager
    def sending() -> Iterator[Run]:
        with closing(channel):
            send = channel.place_sender()

            def run(operations: int) -> Tally:
                for _ in range(operations // MESSAGES):
                    for source in sources:
                        send(lambda room, source=source: np.copyto(np.frombuffer(room, np.uint64), source))
                return Tally(operations)

            yield run

    @contextmanager
    def receiving() -> Iterator[Run]:
        with closing(channel):
            receive = channel.place_receiver()

            def run(operations: int) -> Tally:
                right = 0
                for _ in range(operations // MESSAGES):
                    for source in sources:
                        right += receive(
                            lambda view, source=source: np.array_equal(np.frombuffer(view, np.uint64), source)
                        )
                return Tally(int(right))

            yield run

    with closing(channel), measured((cpus[0], sending), (cpus[1], receiving)) as work:
        yield work


def payloads(known: Peers) -> list[Planned]:
    """M11."""

    def copied(name: str, make: Callable[[int], Any]) -> Contender:
        def ready(cpus: Cpus) -> AbstractContextManager[Work]:
            return stream(cpus, make(SIZE), messages())

        return Contender(name, ready, least=MESSAGES)

    def placed(name: str, make: Callable[[int], Any]) -> Contender:
        return Contender(name, lambda cpus: in_place(cpus, make(SIZE)), least=MESSAGES)

    asleep = tuple(copied(name, make) for name, make in known.of(peers.PAYLOADS).items())
    copying = tuple(copied(name, make) for name, make in known.of(peers.LOOKING).items())
    placing = tuple(placed(name, make) for name, make in known.of(peers.IN_PLACE).items())
    spinning = copied(OURS, SpinningRing)
    return [
        Planned(Case("message of 1 MiB, copied", copied(OURS, RingChannel), asleep), {}),
        Planned(Case("message of 1 MiB, copied, spinning", spinning, copying), {"iceoryx2": Goal(least=1)}),
        Planned(
            Case("message of 1 MiB, in place, spinning", placed(OURS, RingPlaces), placing),
            {"iceoryx2": Goal(least=1.2)},
        ),
    ]


ROWS = {"M11": Row("messages of 1 MiB, copied and in place", payloads)}
