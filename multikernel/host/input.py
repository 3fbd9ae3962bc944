"""What an instance reads from its console: a bounded pipe, whose end one client at a time is given to write into."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from multikernel.errors import ResourceError
from multikernel.shm.channel import close_all

if TYPE_CHECKING:
    from multikernel.host.client import Client


WRITE = "input_write"
"""What the writing end is called among an instance's descriptors."""


class Input:
    """The pipe of one incarnation.

    The instance holds its writing end as well, so that a read waits for somebody to attach, whatever becomes of those
    who do, and of the host.

    Raises:
        OSError: no descriptors.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._holder: Client | None = None

    def extras(self) -> dict[str, int]:
        """What the instance is given; these stay this object's."""
        return {"input": self._read, **self.kept()}

    def kept(self) -> dict[str, int]:
        """What the next host needs of it, if this one is killed."""
        return {WRITE: self._write} if self._write >= 0 else {}

    def resume(self, fd: int) -> None:
        """It was another host's: the end to write to, owned from here on."""
        self.close()
        self._write = fd

    def handed_over(self) -> None:
        """The instance has it: so that who writes learns of its end."""
        self._read = _closed(self._read)

    def attach(self, client: Client, name: str) -> list[int]:
        """A descriptor for the client to write to, which is the caller's.

        Raises:
            ResourceError: another has it.
            OSError: no descriptors.
        """
        if self._write < 0:
            raise ResourceError(
                f"nobody can type to {name!r} yet: its host was killed, and it has not come to this one with what it "
                "reads. It comes by itself, unless it is stopped.",
                name=name,
            )
        holder = self._holder
        if holder is not None and not holder.wire.closed:
            raise ResourceError(
                f"the console of {name!r} has one who types already: process {holder.pid}. One at a time can; "
                "any number can follow it.",
                name=name,
                pid=holder.pid,
            )
        fds = [os.dup(self._write)]
        self._holder = client
        return fds

    def detach(self, client: Client) -> None:
        """The client writes no more."""
        if self._holder is client:
            self._holder = None

    def close(self) -> None:
        """Close what is open. Twice is fine."""
        close_all([fd for fd in (self._read, self._write) if fd >= 0])
        self._read = self._write = -1
        self._holder = None


def _closed(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1
