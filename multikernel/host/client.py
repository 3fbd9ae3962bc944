"""A client as its host keeps it: a program, or a command, at the other end of a control connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from multikernel.errors import Closed
from multikernel.host.party import Party
from multikernel.host.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from multikernel.host.instance import Instance
    from multikernel.shm.channel import Channel, Document

FIRST_CLIENT_ID = 512


class Client:
    """One control connection.

    Args:
        client_id: its sender id, from 512 up, never used again by this host.
        channel: owned from here on.
        receive: called with each document, and its descriptors.
        lost: called once, when the connection is gone.

    Raises:
        OSError: its process is gone already, or there are no descriptors. The channel is closed then.
    """

    def __init__(
        self,
        client_id: int,
        channel: Channel,
        receive: Callable[[Client, Document, list[int]], None],
        lost: Callable[[Client, Exception | None], None],
    ) -> None:
        self.id = client_id
        self.watches = False
        """Whether it has asked to be told of pages of instances."""
        self.busy = 0
        """Requests that are being worked on."""
        self._unseen: set[int] = set()
        self._stale: dict[int, Instance] = {}
        loop = asyncio.get_running_loop()

        def gone(why: Exception | None) -> None:
            # In a turn of its own: who finds it gone is telling it something, and others after it.
            loop.call_soon(lost, self, why)

        try:
            self.pid = channel.peer()[0]
            self.pidfd = os.pidfd_open(self.pid)
            self.wire = Wire(channel, lambda document, fds: receive(self, document, fds), gone)
        except BaseException:
            channel.close()
            raise

    def party(self) -> Party:
        """As who it asks for links."""
        return Party(self.id, f"client-{self.pid}", 0, self.pidfd, self.wire.send, self.pid)

    def tell(self, instance: Instance) -> None:
        """Push the pages of its newest incarnation, or that there are none, and the panic report that is kept.

        One push for each instance is under way at most: what comes while the client has not said that it has seen the
        last one is not piled up, it gets the newest when it has. So a client that never reads costs nothing.
        """
        if not self.watches:
            return
        if instance.id in self._unseen:
            self._stale[instance.id] = instance
            return
        self._unseen.add(instance.id)
        last, panic = instance.last, instance.panic
        report, kept = (panic[0], [panic[1]]) if panic else (0, [])
        # No descriptors for it now, open or on their way: it goes without these pages.
        with contextlib.suppress(OSError):
            if last is not None:
                document = {"push": "incarnation", "id": instance.id, "epoch": last.epoch, "panic": report}
                self.wire.send(document, [*last.pages, *kept])
                return
            self.wire.send({"push": "gone", "id": instance.id, "panic": report}, kept)
            return
        self.wire.send({"push": "gone", "id": instance.id, "panic": 0})

    def has_seen(self, instance_id: int) -> None:
        """It has taken the last push about that instance."""
        self._unseen.discard(instance_id)
        instance = self._stale.pop(instance_id, None)
        if instance is not None:
            self.tell(instance)

    def close(self) -> None:
        """Close the connection. Closing twice is fine."""
        self.wire.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def check_user(uid: int) -> None:
    """Refuse a peer that is another user's process, root's too: its run directory is another one.

    Raises:
        Closed: it is.
    """
    if uid != os.geteuid():
        raise Closed(f"refused a connection of uid {uid}: this machine belongs to uid {os.geteuid()}")
