"""The control socket: lets clients in, and has their requests answered."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from multikernel.errors import Closed, MultikernelError
from multikernel.host import log, verbs
from multikernel.host.answers import Answer, Answers
from multikernel.host.client import Client, check_user
from multikernel.host.request import Request
from multikernel.shm.channel import Channel, Document, close_all

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from multikernel.host.kernel import HostKernel

_IDS = 256  # ids of clients that are reserved at a time
_BREATH = 0.1  # seconds without accepting, after the system had no descriptor for a client


class Server:
    """All clients of one host.

    Args:
        host: does what they ask.
        left: called when a client's connection is gone.
        first: the first id of a client.
        reserve: called with the first id that none will have until the next call; so that no id is used twice, whatever
            becomes of this host.
    """

    def __init__(
        self, host: HostKernel, left: Callable[[Client], None], first: int, reserve: Callable[[int], None]
    ) -> None:
        self.clients: dict[int, Client] = {}
        self._host, self._left = host, left
        self._ids = itertools.count(first)
        self._reserved, self._reserve = first, reserve
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._refuses = False  # whether the last one who came could not be accepted, which was said then
        self.answers = Answers()

    def listen(self, sock: socket.socket) -> None:
        """Accept clients from a listening socket, owned from here on."""
        self._socket = sock
        self._loop.add_reader(sock, self._accept)

    def admit(self, channel: Channel) -> Client:
        """Take a connection, or close it and raise: Closed if it is another user's, OSError if its process is gone."""
        try:
            check_user(channel.peer()[1])
        except BaseException:
            channel.close()
            raise
        client = Client(self._next_id(), channel, self._receive, self._lost)
        self.clients[client.id] = client
        return client

    def close(self) -> None:
        """Close all connections, and the socket. Requests that are not answered stay so."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for client in list(self.clients.values()):
            client.close()
        self.clients.clear()

    def _next_id(self) -> int:
        number = next(self._ids)
        if number >= self._reserved:
            self._reserved = number + _IDS
            self._reserve(self._reserved)
        return number

    def _accept(self) -> None:
        if self._socket is None:
            return
        try:
            sock, _ = self._socket.accept()
        except BlockingIOError:
            return
        except OSError as error:  # no descriptors: the one that waits would wake us again at once, and for ever
            if not self._refuses:
                log.write(f"cannot accept a client: {error}. It is tried again until it can be.")
            self._refuses = True
            self._loop.remove_reader(self._socket)
            self._loop.call_later(_BREATH, self._breathe)
            return
        self._refuses = False
        try:
            self.admit(Channel(sock))
            self._host.publish()
        except (Closed, OSError) as error:
            log.write(str(error))

    def _breathe(self) -> None:
        if self._socket is not None:
            self._loop.add_reader(self._socket, self._accept)

    def _lost(self, client: Client, reason: Exception | None) -> None:
        if reason is not None:
            log.write(f"dropped client {client.id} (pid {client.pid}): {reason}")
        client.close()
        if self.clients.pop(client.id, None) is not None:  # else all were closed meanwhile
            self._left(client)

    def _receive(self, client: Client, document: Document, fds: list[int]) -> None:
        if document.get("verb") == "seen":
            close_all(fds)
            if isinstance(document.get("instance"), int):
                client.has_seen(document["instance"])
            return
        if document.get("verb") in ("unlink", "facing"):
            close_all(fds)
            self._host.links.told(client.party(), document)
            return
        request = Request(document, fds)
        self.answers.begin(client, request, self._do(client, request), client.wire.send)

    async def _do(self, client: Client, request: Request) -> Answer:
        verb = verbs.VERBS.get(request.verb)
        if verb is None:
            raise MultikernelError(f"there is no verb {request.verb!r}, but {', '.join(verbs.VERBS)}")
        return await verb(self._host, client, request)
