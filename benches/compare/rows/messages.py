"""M6 and M7: streams of bytes, one a call and in lists."""

from __future__ import annotations

from benches.compare import peers
from benches.compare.peers import Peers
from benches.compare.rows import Goal, Planned, Row
from multikernel.tools.bench import cases

ONE_A_CALL = {8: (Goal(least=7), Goal(least=30)), 64: (Goal(least=5, far=4.5), Goal(least=30, far=27))}
MANY_A_CALL = {8: Goal(least=3.5), 64: Goal(least=3.5), 1024: Goal(least=2.2)}


def one_a_call(known: Peers) -> list[Planned]:
    """M6."""
    others = known.of(peers.STREAMS)
    return [
        Planned(cases.message(size, others), {"os.pipe": pipe, "multiprocessing.Pipe": connection})
        for size, (pipe, connection) in ONE_A_CALL.items()
    ]


def many_a_call(known: Peers) -> list[Planned]:
    """M7."""
    others = known.of(peers.BATCHES)
    return [Planned(cases.batch(size, others), {"os.pipe": goal}) for size, goal in MANY_A_CALL.items()]


ROWS = {
    "M6": Row("bytes, one message a call", one_a_call),
    "M7": Row("lists of bytes, 256 messages a call", many_a_call),
}
