"""An end of a ring before its first use: three descriptors that can be passed on, copied by fork, or dropped."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from multikernel.errors import NotOwner


@dataclass
class Handle:
    """What it takes to claim an end.

    own: writable descriptor of the object that this end will write
    peer: read-only descriptor of the other end's
    socket: this end's side of the lane's socket pair; while any process holds it, the other end sees no end of file
    """

    own: int
    peer: int
    socket: int
    _open: bool = field(default=True, repr=False)

    def descriptors(self) -> tuple[int, int, int]:
        """The three descriptors; still this handle's."""
        if not self._open:
            raise NotOwner("this end was passed on or closed: nothing of it is left here")
        return self.own, self.peer, self.socket

    def give_up(self) -> tuple[int, int, int]:
        """The three descriptors; the caller's from now on."""
        fds = self.descriptors()
        self._open = False
        return fds

    def close(self) -> None:
        """Drop the handle without effect on the ring. Idempotent."""
        if self._open:
            for fd in self.give_up():
                os.close(fd)

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Handle], tuple[Any, ...]]:
        # The import is here because few programs pickle an end, and the module costs more than all of ours.
        from multiprocessing import reduction

        return _rebuild, tuple(reduction.DupFd(fd) for fd in self.descriptors())


def _rebuild(own: Any, peer: Any, socket: Any) -> Handle:
    return Handle(own.detach(), peer.detach(), socket.detach())
