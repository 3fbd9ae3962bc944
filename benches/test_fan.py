"""Four senders that share a core, against one that has it to itself: nothing collapses when one is preempted."""

from __future__ import annotations

import pytest

from benches.fan import fan_in


@pytest.mark.parametrize("batches", [False, True], ids=["one_a_call", "256_a_call"])
@pytest.mark.parametrize("size", [8, 64])
def test_fan_in(record, cpus, size, batches):
    with (
        fan_in(cpus, 4, 1200, size, batches=batches) as four,
        fan_in(cpus, 1, 1200, size, batches=batches) as one,
    ):
        how = "256 a call" if batches else "one a call"
        record(f"4 senders to a mailbox, {size} B, {how}", "1 sender", four, one)
