"""Instances: interrupts, and boot."""

from __future__ import annotations

import pytest

from benches import instances


@pytest.mark.parametrize("peer", instances.INTERRUPTS)
def test_ipi(record, cpus, peer):
    """An IPI there, its handler's answer back."""
    rounds = 2000
    with instances.ipi(cpus, rounds) as ours, instances.INTERRUPTS[peer](cpus, rounds) as theirs:
        record("IPI and its handler's answer", peer, ours, theirs)


@pytest.mark.parametrize("peer", instances.BOOTS)
def test_boot(record, cpus, peer):
    """From the call that starts it to its first reply."""
    with instances.boot(cpus) as ours, instances.BOOTS[peer](cpus) as theirs:
        record("boot to first reply", peer, ours, theirs)
