"""`instances/NAME/interrupts`: IPIs that came to it, by vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multikernel.proc import interrupts

if TYPE_CHECKING:
    from multikernel.proc.reader import Seen


def values(seen: Seen) -> dict[str, Any]:
    """Its column of the machine's table."""
    return interrupts.merge({seen.record.name: interrupts.of(seen)})


def text(seen: Seen) -> str:
    """Laid out as /proc/interrupts is, with one column."""
    return interrupts.layout(values(seen))
