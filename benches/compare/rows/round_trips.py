"""M9 and M10: there and back, asleep and spinning."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benches.compare import peers
from benches.compare.peers import Peers
from benches.compare.rows import Goal, Planned, Row
from multikernel.tools.bench import cases
from multikernel.tools.bench.cache_line import bouncing
from multikernel.tools.bench.compare import Contender

SIZE = 8  # bytes
BARE_LINE = "the bare cache line"


def blocking(known: Peers) -> list[Planned]:
    """M9."""
    case = cases.blocking(SIZE, known.of(peers.WAKING))
    return [Planned(case, {"os.eventfd": Goal(most=1.0)}, latency=True)]


def polling(known: Peers) -> list[Planned]:
    """M10."""
    case = cases.spinning(SIZE, {**cases.POLLING, **known.of(peers.LOOKING)})
    lines = (Contender(BARE_LINE, bouncing), Contender("a bare line each way", partial(bouncing, lines=2)))
    return [
        Planned(replace(case, others=(*lines, *case.others)), {BARE_LINE: Goal(most=3.0, far=1.8)}, latency=True),
    ]


ROWS = {
    "M9": Row("there and back, both sides asleep until something comes, 8 B", blocking),
    "M10": Row("there and back, both sides spinning, 8 B", polling),
}
