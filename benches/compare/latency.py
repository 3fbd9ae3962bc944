"""What each round trip took: not the mean only, since it is the rare long ones that people wait for."""

from __future__ import annotations

from collections.abc import Sequence

from multikernel.shm.histogram import Histogram
from multikernel.tools.bench.compare import Contender, Effort, fitting
from multikernel.tools.bench.sides import Cpus

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)
TIMES = 10
"""How much longer than a sample one looks for the rare ones."""


def measure(contender: Contender, cpus: Cpus, effort: Effort) -> dict[str, float] | None:
    """Percentiles of one operation in ns, of a contender who can say; None: it cannot."""
    if contender.each is None:
        return None
    with contender.each(cpus) as work:
        took = work(fitting(work, contender.least, effort.seconds * TIMES)).sides[0].tally.nanoseconds
    return percentiles(took)


def percentiles(nanoseconds: Sequence[int]) -> dict[str, float]:
    """As plain data: by "p50" and so on, "max", and "count"."""
    histogram = Histogram(nanoseconds)
    found: dict[str, float] = {f"p{each:g}": histogram.percentile(each) for each in PERCENTILES}
    return found | {"max": histogram.max, "count": histogram.count}
