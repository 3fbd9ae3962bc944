"""A change of an instance's state, as who listens is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from multikernel.shm.records import End

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["created", "state", "hung", "alive", "deleted"]


@dataclass(frozen=True, slots=True)
class Event:
    """One change, as it was when it was made."""

    kind: Kind
    """"created"; "state": it has another one; "hung", and "alive" again; "deleted"."""
    name: str
    id: int
    state: str
    """The one that it has now."""
    epoch: int
    """Of its newest incarnation."""
    time_ns: int
    """CLOCK_MONOTONIC."""
    end: End | None = None
    """How the incarnation ended whose end this is; None: it is none's."""
    lost: int = 0
    """How many events before this one were dropped, because this listener was slow to read."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """From what the host sends."""
        end = document["end"]
        return cls(**{**document, "end": None if end is None else End(**end)})
