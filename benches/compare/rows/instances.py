"""I1, and interrupts: what `multikernel bench` has of instances, here for the page."""

from __future__ import annotations

from benches.compare.peers import Peers
from benches.compare.rows import Goal, Planned, Row
from multikernel.tools.bench import cases


def interrupts(_: Peers) -> list[Planned]:
    """Interrupts."""
    return [Planned(cases.interrupt(), {})]


def boots(_: Peers) -> list[Planned]:
    """I1."""
    return [Planned(cases.boot(), {"multiprocessing, forkserver": Goal(most=0.5)})]


ROWS = {
    "ipi": Row("an interrupt to an instance, its handler's answer back", interrupts),
    "I1": Row("from the call that boots an instance to its first reply", boots),
}
