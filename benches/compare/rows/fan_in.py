"""M12 and M13: many senders to one receiver, and one receiver that waits for many lanes."""

from __future__ import annotations

import statistics
import time
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import multikernel as mk
from benches.compare.peers import Peers
from benches.compare.rows import Goal, Planned, Row
from multikernel.tools.bench.cases import OURS
from multikernel.tools.bench.channels import PREPARED, RingChannel, prepared
from multikernel.tools.bench.compare import Case, Contender
from multikernel.tools.bench.sides import Cpus, Run, Sample, Tally, Work, measured

SENDERS = 4
LANES = 64
SIZE = 64  # bytes
FALLS_ASLEEP = 100_000
"""Nanoseconds between an answer and the next message: who waits looks on for some microseconds before it sleeps."""
ONE_SENDER = "one sender"
ONE_LANE = "one lane"


@contextmanager
def streams(cpus: Cpus, senders: int) -> Iterator[Work]:
    """Streams of several senders, all on the first cpu, to one receiver. Each sender's are compared in their order."""
    messages = prepared(SIZE)

    with mk.Mailbox() as mailbox, ExitStack() as made:
        ends = [made.enter_context(closing(mailbox.sender())) for _ in range(senders)]
        receiver = made.enter_context(closing(mailbox.receiver()))

        def sending(number: int):
            @contextmanager
            def opened() -> Iterator[Run]:
                with closing(ends[number]) as end:

                    def run(operations: int) -> Tally:
                        for _ in range(operations // PREPARED // senders):
                            for message in messages:
                                end.send(message)
                        return Tally(operations)

                    yield run

            return opened

        @contextmanager
        def receiving() -> Iterator[Run]:
            with closing(receiver):
                receive = receiver.recv_from

                def run(operations: int) -> Tally:
                    right, seen = 0, {end.number: 0 for end in ends}
                    for _ in range(operations):
                        number, message = receive()
                        right += message == messages[seen[number] % PREPARED]
                        seen[number] += 1
                    return Tally(right)

                yield run

        sides = [(cpus[0], sending(number)) for number in range(senders)]
        with measured(*sides, (cpus[1], receiving)) as work:
            yield work


@contextmanager
def wake_ups(cpus: Cpus, lanes: int) -> Iterator[Work]:
    """Round trips to a receiver that sleeps until something comes on one of its lanes: always on the same one.

    Each is timed by itself, without the pause before it.
    """
    now = time.perf_counter_ns
    messages = prepared(8)

    with mk.Mailbox("4K") as mailbox, ExitStack() as made:
        back = made.enter_context(closing(RingChannel(8, "park")))
        ends = [made.enter_context(closing(mailbox.sender(wait="park"))) for _ in range(lanes)]
        receiver = made.enter_context(closing(mailbox.receiver(wait="park")))

        @contextmanager
        def asking() -> Iterator[Run]:
            with ExitStack() as opened:
                opened.enter_context(closing(back))
                for end in ends:  # each is in use: its lane is there, and its sender lives
                    opened.enter_context(closing(end)).send(b"here")
                send, receive = ends[lanes // 2].send, back.receiver()

                def run(operations: int) -> Tally:
                    right, took = 0, array("Q")
                    for _ in range(operations // PREPARED):
                        for message in messages:
                            asleep = now() + FALLS_ASLEEP
                            while (began := now()) < asleep:
                                pass
                            send(message)
                            right += receive() == message
                            took.append(now() - began)
                    return Tally(right, took)

                yield run

        @contextmanager
        def answering() -> Iterator[Run]:
            with closing(back), closing(receiver):
                for _ in ends:
                    receiver.recv(timeout=30)
                receive, send = receiver.recv, back.sender()

                def run(operations: int) -> Tally:
                    for _ in range(operations):
                        send(receive())
                    return Tally(operations)

                yield run

        with measured((cpus[0], asking), (cpus[1], answering)) as work:
            yield work


def waking(sample: Sample) -> float:
    """Seconds of the middle round trip."""
    return statistics.median(sample.sides[0].tally.nanoseconds) / 1e9


def receivers_cpu(sample: Sample) -> float:
    """Seconds of cpu that the receiver takes for one."""
    return sample.sides[1].cpu / 1e9 / sample.operations


def many_senders(_: Peers) -> list[Planned]:
    """M12."""
    ours = Contender(OURS, lambda cpus: streams(cpus, SENDERS), least=SENDERS * PREPARED)
    one = Contender(ONE_SENDER, lambda cpus: streams(cpus, 1))
    case = Case(f"message of {SIZE} B, {SENDERS} senders on one cpu", ours, (one,))
    return [Planned(case, {ONE_SENDER: Goal(least=0.8)})]


def many_lanes(_: Peers) -> list[Planned]:
    """M13."""
    ours = Contender(OURS, lambda cpus: wake_ups(cpus, LANES))
    one = Contender(ONE_LANE, lambda cpus: wake_ups(cpus, 1))
    return [
        Planned(Case(f"wake-up by one of {LANES} lanes", ours, (one,), waking), {ONE_LANE: Goal(most=1.1)}),
        Planned(
            Case(f"the receiver's cpu time, one of {LANES} lanes", ours, (one,), receivers_cpu),
            {ONE_LANE: Goal(most=3.0)},
        ),
    ]


ROWS = {
    "M12": Row("four senders on one cpu, one receiver", many_senders),
    "M13": Row("one receiver asleep on 64 lanes, one of them busy", many_lanes),
}
