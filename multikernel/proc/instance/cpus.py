"""`instances/NAME/cpus`: the cpus that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multikernel.units import format_cpus

if TYPE_CHECKING:
    from multikernel.proc.reader import Seen


def values(seen: Seen) -> list[int]:
    """Their numbers, ascending."""
    return list(seen.record.cpus)


def text(seen: Seen) -> str:
    """A list as sysfs has it: "0-3,5"; "none" if there are none."""
    return f"{format_cpus(values(seen))}\n"
