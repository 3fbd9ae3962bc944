"""How the waiting policies do beside each other: what adapts must be no worse than what would have been right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial

from benches.compare.peers import Peers
from benches.compare.rows import Goal, Planned, Row
from multikernel.shm.waiting import WaitPolicy
from multikernel.tools.bench.channels import PREPARED, RingChannel, prepared
from multikernel.tools.bench.compare import Case, Contender
from multikernel.tools.bench.sides import Cpus, Run, Sample, Tally, Work, measured
from multikernel.tools.bench.work import round_trips

SIZE = 8  # bytes
GOAL = Goal(most=1.2)

SLOW = 32  # round trips of each turn in which the other side takes its time
SLOW_NS = 1_000_000  # ns that it takes
TURN = SLOW + 8 * PREPARED  # round trips: the slow ones first, then those that are answered at once


def policies(name: str, place: Callable[[Cpus], Cpus]) -> Contender:
    """Round trips with one policy."""

    def ready(cpus: Cpus) -> AbstractContextManager[Work]:
        return round_trips(place(cpus), *(RingChannel(SIZE, name) for _ in range(2)), prepared(SIZE))

    return Contender(name, ready)


def one_cpu(cpus: Cpus) -> Cpus:
    return cpus[0], cpus[0]


def two_cpus(cpus: Cpus) -> Cpus:
    return cpus


@contextmanager
def changing(cpus: Cpus, policy: WaitPolicy) -> Iterator[Work]:
    """A peer that is slow, then fast. The asking side says the ns of fast trips, and its ns on the cpu in slow ones."""
    message = prepared(SIZE)[0]
    out, back = RingChannel(SIZE, policy), RingChannel(SIZE, policy)

    @contextmanager
    def asking() -> Iterator[Run]:
        with closing(out), closing(back):
            send, receive = out.sender(), back.receiver()

            def trips(count: int) -> int:
                right = 0
                for _ in range(count):
                    send(message)
                    right += receive() == message
                return right

            def run(operations: int) -> Tally:
                right = fast = slow_cpu = 0
                for _ in range(operations // TURN):
                    began = time.process_time_ns()
                    right += trips(SLOW)
                    slow_cpu += time.process_time_ns() - began
                    began = time.perf_counter_ns()
                    right += trips(TURN - SLOW)
                    fast += time.perf_counter_ns() - began
                return Tally(right, (fast, slow_cpu))

            yield run

    @contextmanager
    def answering() -> Iterator[Run]:
        with closing(out), closing(back):
            receive, send = out.receiver(), back.sender()

            def run(operations: int) -> Tally:
                for _ in range(operations // TURN):
                    for number in range(TURN):
                        heard = receive()
                        if number < SLOW:
                            until = time.perf_counter_ns() + SLOW_NS
                            while time.perf_counter_ns() < until:
                                continue
                        send(heard)
                return Tally(operations)

            yield run

    with ExitStack() as opened:
        for channel in (out, back):
            opened.enter_context(closing(channel))
        yield opened.enter_context(measured((cpus[0], asking), (cpus[1], answering)))


def fast_trip(sample: Sample) -> float:
    """Seconds of a round trip that is answered at once."""
    return sample.sides[0].tally.nanoseconds[0] / 1e9 / (sample.operations / TURN * (TURN - SLOW))


def cpu_of_slow_trip(sample: Sample) -> float:
    """Seconds of cpu that waiting for a slow answer takes."""
    return sample.sides[0].tally.nanoseconds[1] / 1e9 / (sample.operations / TURN * SLOW)


def waiting(_: Peers) -> list[Planned]:
    """Adaptive beside what is right for the case."""

    def change(policy: WaitPolicy) -> Contender:
        return Contender(policy, partial(changing, policy=policy), least=TURN)

    adaptive, spin, park = change("adaptive"), change("spin"), change("park")
    return [
        Planned(
            Case("round trip, both ends on one cpu", policies("adaptive", one_cpu), (policies("park", one_cpu),)),
            {"park": GOAL},
        ),
        Planned(
            Case("round trip, two cpus", policies("adaptive", two_cpus), (policies("spin", two_cpus),)),
            {"spin": GOAL},
        ),
        Planned(
            Case("round trip, just after the peer was slow", adaptive, (spin, park), fast_trip),
            {"spin": GOAL},
        ),
        Planned(Case("cpu time of a wait of 1 ms", adaptive, (park, spin), cpu_of_slow_trip), {}),
    ]


ROWS = {"waiting": Row("adaptive waiting beside the policy that is right for the case", waiting)}
