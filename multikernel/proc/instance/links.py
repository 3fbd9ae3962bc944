"""`instances/NAME/links`: with whom it is linked, and what has passed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multikernel.proc.words import table
from multikernel.shm.pages import CLIENT_ID, Counters

if TYPE_CHECKING:
    from multikernel.proc.reader import Seen


def values(seen: Seen) -> list[dict[str, Any]]:
    """A link each. peer: "host", "client" or "instance"; capacity: bytes, each way; counters as in `status`."""
    if seen.status is None:
        return []
    return [
        {"peer_id": link.peer, "peer": _kind(link.peer), "capacity": link.capacity} | vars(link.counters)
        for link in seen.status.links
    ]


def text(seen: Seen) -> str:
    """A table: a row a link."""
    names = ("peer_id", "peer", "capacity", *Counters.__dataclass_fields__)
    return table(names, ([link[name] for name in names] for link in values(seen)), left=("peer",))


def _kind(peer: int) -> str:
    if not peer:
        return "host"
    return "client" if peer >= CLIENT_ID else "instance"
