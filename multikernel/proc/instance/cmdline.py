"""`instances/NAME/cmdline`: what the image was loaded with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multikernel.proc.reader import Seen


def values(seen: Seen) -> str:
    """The command line; "" if nothing is loaded."""
    return seen.record.cmdline


def text(seen: Seen) -> str:
    """As /proc/cmdline: one line, which is as it was given."""
    return f"{values(seen)}\n"
