"""`instances/NAME/panic`: the report of the last incarnation that died by itself; empty if none has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multikernel.proc.reader import Seen


def text(seen: Seen) -> str:
    """As `multikernel show NAME --panic` prints it."""
    return seen.panic.text() if seen.panic else ""


def values(seen: Seen) -> dict[str, Any] | None:
    """The fields of `Panic`; None: there is no report."""
    return seen.panic.to_json() if seen.panic else None
