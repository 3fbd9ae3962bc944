"""M1 to M5: the C core by itself, by its own benches (csrc/bench), beside rings in C in the same program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benches.compare import ccore
from benches.compare.rows import Goal, Row
from multikernel.tools.bench.compare import Comparison, Effort
from multikernel.tools.bench.sides import Cpus

BOOST, RIGTORP, CK, RTE = "boost::lockfree::spsc_queue", "rigtorp-like", "ck_ring", "rte_ring"
OTHERS = dict.fromkeys((RIGTORP, CK, RTE), Goal(least=2))

WORKS: dict[str, tuple[str, dict[str, Mapping[str, Goal]]]] = {
    "M1": ("stream", {"8 B elements, one a call": {BOOST: Goal(least=3, far=2.5)} | OTHERS}),
    "M2": ("stream", {"8 B elements, 32 a call": {BOOST: Goal(least=2)}}),
    "M3": (
        "stream",
        {
            "64 B elements, one a call": {BOOST: Goal(least=1.5)},
            "64 B elements, 32 a call": {BOOST: Goal(least=1.4)},
            "64 B records, one a call": {BOOST: Goal(least=1.2)},
            "64 B records, 32 a call": {BOOST: Goal(least=1)},
        },
    ),
    "M4": (
        "round_trip",
        {
            "spinning round trip, 64 B element": {"bare cache line": Goal(most=1)},
            "spinning round trip, 64 B record": {"bare cache line": Goal(most=1.1)},
        },
    ),
    "M5": ("wake", {"blocking round trip, 64 B record": {"bare futex pair": Goal(most=1.03)}}),
}

ABOUT = {
    "M1": "the C core, elements of 8 B one a call",
    "M2": "the C core, elements of 8 B 32 a call",
    "M3": "the C core, 64 B",
    "M4": "the C core, there and back, spinning",
    "M5": "the C core, there and back, asleep",
}


def measured(name: str) -> Row:
    """A row whose comparisons a program in C makes."""
    program, works = WORKS[name]

    def found(cpus: Cpus, _: Effort) -> Iterator[tuple[Comparison, Goal | None]]:
        for work, goals in works.items():
            for comparison in ccore.comparisons(cpus, program, work):
                yield comparison, goals.get(comparison.against)

    return Row(ABOUT[name], found=found)


ROWS = {name: measured(name) for name in WORKS}
