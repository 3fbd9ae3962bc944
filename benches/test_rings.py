"""Rings: one message a call, batches, arrays, and round trips that spin and that block."""

from __future__ import annotations

import pytest

from benches import peers

SIZES = (8, 64, 1024)


@pytest.mark.parametrize("peer", peers.STREAMS)
@pytest.mark.parametrize("size", SIZES)
def test_message(record, cpus, peer, size):
    """A stream, one message a call."""
    rounds = 100
    with peers.ring_stream(cpus, rounds, size) as ours, peers.STREAMS[peer](cpus, rounds, size) as theirs:
        record(f"message of {size} B", peer, ours, theirs)


@pytest.mark.parametrize("peer", peers.BATCHES)
@pytest.mark.parametrize("size", SIZES)
def test_batch(record, cpus, peer, size):
    """A stream of lists of bytes, 256 a call."""
    rounds = 400
    with peers.ring_batches(cpus, rounds, size) as ours, peers.BATCHES[peer](cpus, rounds, size) as theirs:
        record(f"message of {size} B, 256 a call", peer, ours, theirs)


@pytest.mark.parametrize("peer", peers.ARRAYS)
def test_arrays(record, cpus, peer):
    """A stream of numpy arrays of 256 elements, 64 bytes each."""
    rounds = 2000
    with peers.ring_arrays(cpus, rounds) as ours, peers.ARRAYS[peer](cpus, rounds) as theirs:
        record("array element of 64 B, 256 a call", peer, ours, theirs)


@pytest.mark.parametrize("peer", peers.SPINNING)
@pytest.mark.parametrize("size", [8, 64])
def test_spinning_round_trip(record, cpus, peer, size):
    """There and back, both sides spinning."""
    rounds = 20
    with (
        peers.ring_echo(cpus, rounds, size, wait="spin") as ours,
        peers.SPINNING[peer](cpus, rounds, size) as theirs,
    ):
        record(f"spinning round trip, {size} B", peer, ours, theirs)


@pytest.mark.parametrize("peer", peers.BLOCKING)
@pytest.mark.parametrize("size", [8, 64])
def test_blocking_round_trip(record, cpus, peer, size):
    """There and back, both sides asleep until something comes."""
    rounds = 8
    with (
        peers.ring_echo(cpus, rounds, size, wait="park") as ours,
        peers.BLOCKING[peer](cpus, rounds, size) as theirs,
    ):
        record(f"blocking round trip, {size} B", peer, ours, theirs)
