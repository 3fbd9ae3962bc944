"""The benches: what `multikernel bench` runs, and what the side-by-side comparison in benches/ is made of.

Ours and another in turn, A B A B, each in two pinned processes; every message is compared with what it should be; a
bare cache line's round trip stands beside each figure. What a time says decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compare import Comparison, Effort
    from .sides import Cpus


def available() -> dict[str, str]:
    """The names of the benches, and what each is about."""
    from .cases import BENCHES

    return {name: about for name, (about, _) in BENCHES.items()}


def run(
    names: Iterable[str], cpus: Cpus, effort: Effort, *, starts: Callable[[int, int, str], object] = lambda *_: None
) -> Iterator[Comparison]:
    """Run benches, and give each comparison when it is there.

    Args:
        names: of `available`.
        cpus: of the two processes; two different ones.
        effort: how long.
        starts: called before each comparison with how many are done, how many there are, and what it is about.

    Raises:
        Wrong: something came out that should not have.
        MultikernelError, OSError: as whatever is measured.
    """
    from .cases import BENCHES
    from .compare import compare

    todo = [(case, other) for name in names for case in BENCHES[name][1]() for other in case.others]
    for number, (case, other) in enumerate(todo):
        starts(number, len(todo), f"{case.work}, against {other.name}")
        yield compare(case, other, cpus, effort)


def as_document(found: Comparison) -> dict[str, Any]:
    """A comparison as plain data with stable keys. Times in seconds, the cache line in ns."""
    return {
        "work": found.work,
        "against": found.against,
        "ratio": found.ratio,
        "low": found.low,
        "high": found.high,
        "ratios": list(found.ratios),
        "ours_s": found.ours,
        "theirs_s": found.theirs,
        "operations": found.operations,
        "cache_line_ns": list(found.spin_ns),
    }
