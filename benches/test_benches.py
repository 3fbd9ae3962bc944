"""The benches of `multikernel bench`, for pytest-benchmark: to keep a run, and to compare the next one with it."""

from __future__ import annotations

import pytest

from multikernel.tools.bench.cases import BENCHES

PAIRS = [
    pytest.param(case, other, id=f"{name}-{case.work}-{other.name}")
    for name, (_, cases) in BENCHES.items()
    for case in cases()
    for other in case.others
]


@pytest.mark.parametrize(("case", "other"), PAIRS)
def test_bench(record, case, other):
    record(case, other)
