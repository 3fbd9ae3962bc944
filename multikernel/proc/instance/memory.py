"""`instances/NAME/memory`: its budget, and what is known to be taken of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multikernel.proc.reader import Seen


def values(seen: Seen) -> dict[str, Any]:
    """Bytes. links: the lanes it sends on, as its page says; console: as large as it can get; named: named memory."""
    links = seen.status.links if seen.status is not None and seen.record.pid else ()
    return {
        "budget": seen.record.memory,
        "image": seen.image.size if seen.image else 0,
        "initrd": seen.record.initrd,
        "console": seen.console.capacity if seen.console else 0,
        "links": sum(link.capacity for link in links),
        "named": seen.record.named,
    }


def text(seen: Seen) -> str:
    """Lines as those of /proc/meminfo, in its unit."""
    return "".join(f"{name.title() + ':':<8} {size // 1024:>11} kB\n" for name, size in values(seen).items())
