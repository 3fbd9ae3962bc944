"""`Ring`: one direction between two processes or threads, at the speed of memory.

A ring is two memory objects and two ends. An end is only a handle until its first use, which *claims* it: maps its
object writable and seals it, so that no other process can ever write there. Until then it may be passed on (to a child
made by fork, spawn or forkserver, or by descriptors), afterwards it belongs to that process for ever.
"""

from __future__ import annotations

import os
import socket
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from multikernel._core import lib
from multikernel.errors import NotOwner
from multikernel.units import format_size, parse_size

from .format import Format
from .handles import Handle
from .objects import lane_object, reopen
from .receiver import Receiver
from .sender import Sender
from .waiting import WaitPolicy, policy_number

if TYPE_CHECKING:
    from collections.abc import Callable


class Ring:
    """A byte ring between one sender and one receiver.

    Args:
        capacity: least room, bytes or a size such as "1M"; rounded up to a power of two of at least a page.
        dtype: of the elements, for a ring of numpy arrays; None: a ring of records (bytes).
        shape: of one element.

    Raises:
        ValueError: a capacity, dtype or shape that cannot be.
        OSError: not enough memory or descriptors; allocated here and now, so that shortage shows here.
    """

    def __init__(self, capacity: int | str = "1M", *, dtype: Any = None, shape: int | tuple[int, ...] = ()) -> None:
        self._ends: weakref.WeakSet[Sender | Receiver] = weakref.WeakSet()
        self._sender: Handle | None = None
        self._receiver: Handle | None = None
        self._format = Format.of(dtype, shape)
        self._capacity = capacity_for(capacity, self._format)
        self._sender, self._receiver = make_ends(self._capacity, self._format.size)

    @property
    def capacity(self) -> int:
        """Bytes that the ring holds, record headers (16 bytes each) and padding (to 8) included."""
        return self._capacity

    def sender(self, *, wait: WaitPolicy = "adaptive") -> Sender:
        """The sending end. The second call raises NotOwner: there is one."""
        policy_number(wait)
        handle, self._sender = self._sender, None
        if handle is None:
            raise NotOwner("this ring's sender was handed out already: a ring has one; make a ring for each sender")
        end = Sender(handle, self._format, wait)
        self._ends.add(end)
        return end

    def receiver(self, *, wait: WaitPolicy = "adaptive") -> Receiver:
        """The receiving end. The second call raises NotOwner: there is one."""
        policy_number(wait)
        handle, self._receiver = self._receiver, None
        if handle is None:
            raise NotOwner("this ring's receiver was handed out already: a ring has one; make a ring for each receiver")
        end = Receiver(handle, self._format, wait)
        self._ends.add(end)
        return end

    def close(self) -> None:
        """Close both ends, as far as this process has them. Idempotent.

        Raises:
            NotOwner: another thread is using one of them, or a view of it is still open; the rest is closed.
        """
        handles, self._sender, self._receiver = (self._sender, self._receiver), None, None
        for handle in handles:
            if handle is not None:
                handle.close()
        in_use: NotOwner | None = None
        for end in list(self._ends):
            try:
                end.close()
            except NotOwner as error:
                in_use = error
        if in_use is not None:
            raise in_use

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Ring], tuple[Any, ...]]:
        return _rebuild, (self._capacity, self._format, self._sender, self._receiver)

    def __repr__(self) -> str:
        here = [name for name, end in (("sender", self._sender), ("receiver", self._receiver)) if end is not None]
        return (
            f"<Ring of {self._format}, {format_size(self._capacity)}, not handed out: {', '.join(here) or 'nothing'}>"
        )


def _rebuild(capacity: int, format_: Format, sender: Handle | None, receiver: Handle | None) -> Ring:
    ring = Ring.__new__(Ring)
    ring._ends = weakref.WeakSet()
    ring._capacity, ring._format, ring._sender, ring._receiver = capacity, format_, sender, receiver
    return ring


def capacity_for(capacity: int | str, format_: Format) -> int:
    """The bytes of a ring of at least `capacity`: a power of two of at least a page. ValueError if that cannot be."""
    least = parse_size(capacity)
    if least < 1:
        raise ValueError(f"capacity {capacity!r}: a ring has at least one byte")
    return max(format_.capacity(least), lib.MK_CAPACITY_MIN, lib.mk_page_size())  # type: ignore[no-any-return]


def make_ends(capacity: int, element: int) -> tuple[Handle, Handle]:
    """Both objects, unmapped and unclaimed, and the socket pair, as two handles; nothing is left after an error."""
    fds: list[int] = []
    try:
        for kind in ("producer", "consumer"):
            fds.append(lane_object(kind, "ring", capacity, element=element))
            fds.append(reopen(fds[-1]))
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    producer, producer_read, consumer, consumer_read = fds
    return Handle(producer, consumer_read, here.detach()), Handle(consumer, producer_read, there.detach())
