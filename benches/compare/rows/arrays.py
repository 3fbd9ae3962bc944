"""M8: numpy arrays, whose elements of 64 bytes cost what they cost the C core."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benches.compare import ccore
from benches.compare.peers import Peers
from benches.compare.rows import Goal, Planned, Row
from multikernel.tools.bench import cases
from multikernel.tools.bench.compare import Contender

CORE = "the C core, 32 a call"
BATCHES = {32: Goal(least=0.85), 256: Goal(least=0.95, far=2), 4096: Goal(least=0.95, far=2)}

# Any number will do: its program decides by itself how many operations a sample takes.
_OPERATIONS = 1 << 20


def arrays(_: Peers) -> list[Planned]:
    """M8."""
    core = Contender(CORE, partial(ccore.ours, name="stream", work="64 B elements, 32 a call"), least=_OPERATIONS)
    planned = []
    for count, goal in BATCHES.items():
        case = cases.array(count)
        planned.append(Planned(replace(case, others=(core, *case.others)), {CORE: goal}))
    return planned


ROWS = {"M8": Row("numpy arrays of elements of 64 B", arrays)}
