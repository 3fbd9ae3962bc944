"""Who is linked to others: an incarnation of an instance, or a client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multikernel.host.inbound import Inbound
    from multikernel.shm.channel import Document


@dataclass(frozen=True, slots=True)
class Party:
    """A process that has, or asks for, links."""

    id: int
    name: str
    epoch: int
    """0: a client, which has no other incarnations."""
    pidfd: int
    """Of the process; stays the owner's."""
    push: Callable[[Document, Sequence[int]], None]
    """Sends it a document, without waiting; the descriptors stay the caller's. OSError: there are none for that."""
    pid: int
    inbound: Inbound | None = None
    """The lanes that it receives by, for one that is supervised."""
