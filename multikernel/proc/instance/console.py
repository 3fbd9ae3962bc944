"""`instances/NAME/console`: what its last incarnation printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multikernel.errors import CorruptLane
from multikernel.shm.pages import Line, as_text

if TYPE_CHECKING:
    from multikernel.proc.reader import Seen

_ERROR = 3  # syslog's


def values(seen: Seen) -> dict[str, Any]:
    """Lines, oldest first, as many as are left; unread: what was still in its pipe when it died.

    A line has time_ns (CLOCK_MONOTONIC), level (syslog's), text, partial (no newline followed it).
    """
    return {"lines": [vars(line) for line in _lines(seen)], "unread": _unread(seen)}


def text(seen: Seen) -> str:
    """As it was printed: whatever bytes there were, control characters too."""
    return as_text(_lines(seen)) + _unread(seen)


def _lines(seen: Seen) -> list[Line]:
    # What another incarnation printed is not shown as this one's.
    if seen.console is None or seen.epoch != seen.record.epoch:
        return []
    try:
        return seen.console.lines()[0]
    except CorruptLane as error:
        return [Line(0, _ERROR, str(error), partial=False)]  # a scribbler does not hide what else there is to see


def _unread(seen: Seen) -> str:
    # The host keeps it until the next end: while an incarnation runs, it is that of the one before.
    return seen.record.console_tail if not seen.record.pid else ""
