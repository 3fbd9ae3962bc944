"""`instances/NAME/image`: the image that is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multikernel.proc import kimages
from multikernel.proc.words import line, pairs

if TYPE_CHECKING:
    from multikernel.proc.reader import Seen


def values(seen: Seen) -> dict[str, Any] | None:
    """As in `kimages`; None: none is loaded."""
    return kimages.of(seen.image) if seen.image else None


def text(seen: Seen) -> str:
    """A line a property."""
    its = values(seen)
    if its is None:
        return "No kimage loaded\n"
    return pairs(
        (
            ("Id", its["id"]),
            ("Type", line(its["kind"])),
            ("Size", f"{its['size']} bytes"),
            ("Digest", line(its["digest"])),
            ("Signature", line(its["signature"])),
            ("Users", its["users"]),
            ("Imports", ", ".join(f"{line(each['name'])} {line(each['version'])}" for each in its["imports"]) or None),
            ("Name", line(its["name"])),
        )
    )
