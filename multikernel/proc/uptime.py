"""`uptime`: how long the machine has been there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multikernel.proc.reader import Reader


def values(reader: Reader) -> float:
    """Seconds since the machine's host began."""
    return max(0, reader.now_ns() - reader.machine().boot_time_ns) / 1e9


def text(reader: Reader) -> str:
    """The first number of /proc/uptime; the second one there is the kernel's idle time, which no page has."""
    return f"{values(reader):.2f}\n"
