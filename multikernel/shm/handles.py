"""An end before its first use: descriptors that can be passed on, copied by fork, or dropped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from multikernel.errors import NotOwner

from .lane import LaneEnd
from .objects import Kind, check

L = TypeVar("L", bound=LaneEnd)
Descriptors = tuple[int, int, int]


class Bundle:
    """Descriptors that are passed on together, until somebody takes them out.

    Args:
        fds: the bundle's from now on.
    """

    def __init__(self, *fds: int) -> None:
        # A list of one or none: taking it out is one step, so of two threads one gets the descriptors.
        self._held: list[tuple[int, ...]] = [fds]

    def give_up(self) -> tuple[int, ...]:
        """The descriptors; the caller's from now on.

        Raises:
            NotOwner: they are gone already, or another thread is claiming the end.
        """
        try:
            return self._held.pop()
        except IndexError:
            raise NotOwner(
                "this end was passed on, closed, or is being claimed by another thread: nothing of it is left here"
            ) from None

    def take_back(self, fds: tuple[int, ...]) -> None:
        """What was given up and then not used."""
        self._held.append(fds)

    def close(self) -> None:
        """Drop it without effect on anybody else. Idempotent."""
        while self._held:
            for fd in self._held.pop():
                os.close(fd)

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Bundle], tuple[Any, ...]]:
        # The import is here because few programs pickle an end, and the module costs more than all of ours.
        from multiprocessing import reduction

        if not self._held:
            raise NotOwner("this end was passed on or closed: nothing of it is left here")
        return _rebuild, (type(self), *(reduction.DupFd(fd) for fd in self._held[0]))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._held[0] if self._held else 'given up'}>"


class Handle(Bundle):
    """What it takes to claim an end.

    Args:
        own: writable descriptor of the object that this end will write.
        peer: read-only descriptor of the other end's.
        socket: this end's side of the lane's socket pair: while any process holds it, the other sees no end of file.
    """

    def __init__(self, own: int, peer: int, socket: int) -> None:
        super().__init__(own, peer, socket)

    def give_up(self) -> Descriptors:
        """As `Bundle.give_up`: own, peer, socket."""
        own, peer, socket = super().give_up()
        return own, peer, socket


def _rebuild(kind: type[Bundle], *fds: Any) -> Bundle:
    return kind(*(fd.detach() for fd in fds))


def adopt(fds: Sequence[int]) -> Handle:
    """A handle of three descriptors that came from elsewhere. After an error they are still the caller's."""
    if len(fds) != 3:
        raise ValueError(f"an end has three descriptors, not {len(fds)}")
    for fd in fds:
        os.set_inheritable(fd, False)
    return Handle(*fds)


def claim(handle: Handle, kind: Kind, element: int, make: Callable[[int], L]) -> L:
    """Claim the end that `handle` stands for, for this process.

    Args:
        handle: empty afterwards; after an error that came before the claim it is as it was.
        kind: of the object that this end writes.
        element: bytes of the elements that the user expects; 0: records.
        make: makes the end from that object's descriptor.

    Raises:
        NotOwner: somebody else has claimed it, or is about to.
        ValueError: other elements are in it.
        CorruptLane, OSError: the descriptors are not those of an end.
    """
    fds = own, peer, socket = handle.give_up()
    lane: L | None = None
    attached = False
    try:
        check(own, kind=kind, owned=False, element=element)
        lane = make(own)
        lane.attach(peer, owned=False, socket_fd=socket)
    except BaseException:
        if lane is not None:
            attached = lane.attached  # by an exception after it was: the socket is the lane's then
            lane.close()
        raise
    else:
        attached = True
    finally:
        if attached:
            os.close(own)
            os.close(peer)
        else:
            handle.take_back(fds)
    return lane
