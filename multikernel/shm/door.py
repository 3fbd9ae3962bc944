"""A door: how descriptors reach the process that has claimed the one end of a mailbox or broadcast.

A socket pair. Whoever makes more of the other ends holds the outside, whoever claims the one end takes the inside.
What is put through while nobody has claimed it lies in the socket.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator, Sequence

from multikernel.errors import Closed, ResourceError

from .channel import Channel, Document, Received, _descriptors, close_all

_ROOM_FOR_ONE = socket.CMSG_SPACE(4)


class Door(Channel):
    """One side of a door."""

    @classmethod
    def both(cls) -> tuple[Door, int]:
        """The outside, and a descriptor of the inside."""
        outside, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(outside), inside.detach()

    @classmethod
    def of(cls, fd: int) -> Door:
        """From a descriptor, which is the door's from now on."""
        return cls(socket.socket(fileno=fd))

    # --- outside

    def put(self, document: Document, fds: Sequence[int], what: str) -> None:
        """Put descriptors through, without waiting.

        Raises:
            Closed: nobody is inside any more, or the door was shut.
            ResourceError: as many as the system lets be under way have not been taken in yet.
        """
        if self.ended:
            raise Closed(f"whoever takes in a new {what} has ended")
        if not self.send(document, fds, wait=False):
            raise ResourceError(
                f"no room for another {what}: many were made, and the other end has not taken them in yet. It does "
                "when it is used; make more then",
            )

    @property
    def ended(self) -> bool:
        """Whether the process that has claimed the inside has ended. One that only holds it may still claim it."""
        fd = self.insider()
        if fd is None:
            return False
        try:
            return has_ended(fd)
        finally:
            os.close(fd)

    def insider(self) -> int | None:
        """A new pidfd of the process that has claimed the inside; None: nobody has."""
        # Looked at and not taken, so that whoever else holds the outside sees it as well.
        flags = socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        try:
            packet = self._socket.recvmsg(1, _ROOM_FOR_ONE, flags)
        except (BlockingIOError, ConnectionResetError):
            return None
        fds = _descriptors(packet[1])
        close_all(fds[1:])
        return fds[0] if fds else None

    def announce(self, side: int) -> None:
        """Let the other end of a socket pair know of the process inside, should that end before it takes the pair in.

        Args:
            side: what is put through of the pair.
        """
        pidfd = self.insider()
        if pidfd is None:
            return
        try:
            with socket.socket(fileno=os.dup(side)) as sock:
                socket.send_fds(sock, [b"\0"], [pidfd])
        finally:
            os.close(pidfd)

    def shut(self) -> None:
        """Nothing more comes through, whoever else holds the outside; what is under way arrives."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # nobody is inside
            return

    # --- inside

    def introduce(self) -> None:
        """Say who claimed the inside. Best effort: without it, who is put through late may learn late of our end."""
        try:
            pidfd = os.pidfd_open(os.getpid())
        except OSError:
            return
        try:
            self.send({}, [pidfd], wait=False)
        except (Closed, OSError):  # nobody is left outside, or too much is under way
            pass
        finally:
            os.close(pidfd)

    def arrivals(self) -> Iterator[Received]:
        """What has come, without waiting. Ends with Closed when nothing more will."""
        while (received := self.receive(timeout=0)) is not None:
            yield received

    def refuse(self) -> None:
        """Let nothing more come; what is under way arrives."""
        self._socket.shutdown(socket.SHUT_RD)


def has_ended(pidfd: int) -> bool:
    """Whether that process has ended."""
    poll = select.poll()  # select knows descriptors up to 1023 only
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
