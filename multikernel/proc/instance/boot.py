"""`instances/NAME/boot`: how long each step of the newest boot took, from the host's claim to the first wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multikernel.proc.words import table

if TYPE_CHECKING:
    from multikernel.proc.reader import Seen

_HEAD = ("PHASE", "AT(ms)", "TOOK(ms)")
_STEPS = ("spawned", "pinned", "mapped", "imported", "active", "ready")


def values(seen: Seen) -> dict[str, Any]:
    """The incarnation that it is about, and its phases in order; `claimed` is when the host began.

    at_ns: when a phase was reached, after the first; took_ns: after the one before
    """
    reached = dict(seen.status.phase_times_ns) if seen.status else {}
    if seen.epoch in (0, seen.record.epoch) and seen.record.supervised.claimed_ns:
        reached["claimed"] = seen.record.supervised.claimed_ns
    order = [(phase, reached[phase]) for phase in ("claimed", *_STEPS) if phase in reached]
    before = [order[0][1], *(time for _, time in order)] if order else []
    return {
        "epoch": seen.epoch or seen.record.epoch,
        "phases": [
            {"phase": phase, "at_ns": time - order[0][1], "took_ns": time - last}
            for (phase, time), last in zip(order, before, strict=False)
        ],
    }


def text(seen: Seen) -> str:
    """A table, a row a phase."""
    rows = [
        (each["phase"], f"{each['at_ns'] / 1e6:.3f}", f"{each['took_ns'] / 1e6:.3f}") for each in values(seen)["phases"]
    ]
    return table(_HEAD, rows, ("PHASE",))
