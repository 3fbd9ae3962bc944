"""State changes, told to every client that asks for them (`multikernel.host.verbs.events`)."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from multikernel.kernel.event import Event

if TYPE_CHECKING:
    from multikernel.host.client import Client
    from multikernel.host.instance import Instance
    from multikernel.kernel.event import Kind

MOST_WAITING = 256
"""Events that wait for one client to read; further ones are dropped, and it is told how many."""


class Announcer:
    """Tells what happens. Never waits for a client, and keeps no more than MOST_WAITING for one that does not read."""

    def __init__(self) -> None:
        self._lost: dict[Client, int] = {}

    @property
    def listeners(self) -> int:
        """How many there are."""
        return len(self._lost)

    def add(self, client: Client) -> None:
        """Tell this client from now on."""
        self._lost.setdefault(client, 0)

    def remove(self, client: Client) -> None:
        """It has left."""
        self._lost.pop(client, None)

    def tell(self, kind: Kind, instance: Instance, *, ended: bool = False) -> None:
        """Something has happened to an instance, as its record says it; `ended`: an incarnation of its has."""
        if not self._lost:
            return
        event = Event(
            kind=kind,
            name=instance.name,
            id=instance.id,
            state=instance.state,
            epoch=instance.epoch,
            time_ns=time.monotonic_ns(),
            end=instance.end if ended else None,
        )
        document: dict[str, Any] = {"push": "event", "event": dataclasses.asdict(event)}
        for client, lost in list(self._lost.items()):
            if client.wire.queued >= MOST_WAITING:
                self._lost[client] = lost + 1
            else:
                document["event"]["lost"] = lost
                self._lost[client] = 0
                client.wire.send(document)
