"""Named memory: private state of an instance that outlives its incarnations, passed on by descriptor.

The host makes each memory and holds it. Only the incarnation that runs is ever given it, on its own control channel;
the next one is not forked before that has ended for certain, so a memory has one owner at a time, who may write it. It
is never copied, and goes when no successor is due.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from multikernel.errors import ResourceError
from multikernel.resources.names import check_name
from multikernel.shm import named
from multikernel.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from multikernel.host.answers import Answer
    from multikernel.host.deposit import Deposit
    from multikernel.host.request import Request

MOST = 64
"""Memories of one instance, at most: each is a descriptor of the host's."""


class NamedMemory:
    """All memories of one instance, by name."""

    def __init__(self) -> None:
        self._deposit: Deposit | None = None
        self._instance = 0
        self._made: dict[str, tuple[int, int]] = {}  # descriptor, bytes
        self._turn = asyncio.Lock()  # one is made at a time, so that none is made twice

    def keep_with(self, deposit: Deposit | None, instance_id: int) -> None:
        """Whose they are, and where the next host finds them."""
        self._deposit, self._instance = deposit, instance_id

    def restore(self, name: str, size: int, fd: int) -> None:
        """One that an earlier host has made; its descriptor is owned from here on."""
        self._made[name] = fd, size

    def bring(self, name: str, fd: int) -> None:
        """One that an earlier host has made, brought by the instance; owned from here on. One that is there stays."""
        if name in self._made or not named.is_one(fd):
            os.close(fd)
            return
        self._made[name] = fd, os.fstat(fd).st_size
        self._hand(name)

    def hand_all(self) -> None:
        """Deposit all of them: there is another zygote."""
        for name in self._made:
            self._hand(name)

    def __len__(self) -> int:
        return len(self._made)

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(size for _, size in self._made.values())

    async def serve(self, request: Request, room: Callable[[], int]) -> Answer:
        """Answer a `memory`: the one of that name, made now if it is not there yet.

        Args:
            request: with its name and size.
            room: says how many bytes the instance has for another one.

        Raises:
            ResourceError: the name is against the rule, it is there with another size, or there is no room for it.
            OSError: the system has no memory, or no descriptor. Nothing is left.
        """
        name, size = request.text("name"), named.rounded(request.integer("size"))
        check_name(name)
        async with self._turn:
            fresh = name not in self._made
            if fresh:
                self._check_room(name, size, room())
                self._made[name] = await asyncio.to_thread(named.make, name, size), size  # zeroing takes its time
                self._hand(name)
            fd, there = self._made[name]
            if there != size:
                raise ResourceError(
                    f"the memory {name!r} has {format_size(there)}, not {format_size(size)}: what was asked for first "
                    "stays as long as the instance has successors. Ask for that size, or take another name.",
                    name=name,
                    asked=size,
                    size=there,
                )
            return {"size": size, "fresh": fresh}, [os.dup(fd)]

    def clear(self) -> None:
        """They are no more."""
        if self._deposit is not None:
            for name in self._made:
                self._deposit.let_go(self._key(name))
        self.close()

    def close(self) -> None:
        """Let all of them go here."""
        for fd, _ in self._made.values():
            os.close(fd)
        self._made.clear()

    def _hand(self, name: str) -> None:
        if self._deposit is not None:
            fd, size = self._made[name]
            document = {"instance": self._instance, "name": name, "size": size}
            self._deposit.hold(self._key(name), document, [fd])

    def _key(self, name: str) -> str:
        return f"memory:{self._instance}:{name}"

    def _check_room(self, name: str, size: int, room: int) -> None:
        if size > room:
            raise ResourceError(
                f"no room for the memory {name!r} of {format_size(size)}: the instance has {format_size(max(room, 0))} "
                "left beside image, console and other memories. Create it with more memory.",
                name=name,
                asked=size,
                free=max(room, 0),
            )
        if len(self._made) >= MOST:
            raise ResourceError(
                f"no more than {MOST} memories for one instance, and {name!r} is another one. Put what belongs "
                "together into one.",
                name=name,
                limit=MOST,
            )
