"""A child that the zygote has forked ahead: when an instance is to boot, it only has to be told what it is.

A fork copies page tables, and the child then takes a fault for each page that it touches. That is about a third of a
warm boot, and is done while nobody waits for it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from multikernel.errors import Closed
from multikernel.kernel import process
from multikernel.kernel.manifest import Manifest
from multikernel.kernel.protocol import Descriptors
from multikernel.shm.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from multikernel.shm.channel import Document


class Birth(NamedTuple):
    """What a forked child is to be."""

    manifest: Manifest
    given: Descriptors
    extras: dict[str, int]
    zygote: int


def birth_of(request: Document, fds: list[int], zygote: int) -> Birth:
    """What a spawn request says.

    Raises:
        KeyError, ValueError: it says nothing of the kind.
    """
    manifest = Manifest.from_json(request["manifest"])
    return Birth(manifest, *Descriptors.of(fds, manifest.extras), zygote)


class Spare:
    """It, as the zygote sees it."""

    def __init__(self, pid: int, channel: Channel) -> None:
        self.pid = pid
        self._channel = channel

    def tell(self, request: Document, fds: list[int]) -> bool:
        """Have it be what a spawn request says, with copies of its descriptors. False: it has ended."""
        try:
            return self._channel.send(request, fds, wait=False)
        except Closed:
            return False

    def close(self) -> None:
        """Let it go: one that was not told anything ends. Closing twice is fine."""
        self._channel.close()


def fork(in_child: Callable[[], None]) -> Spare | Birth:
    """Fork one.

    Args:
        in_child: closes, in the child, what is the zygote's.

    Returns:
        In the zygote, the spare. In the child, once it is told, what it is to be; it ends if the zygote does.

    Raises:
        OSError: no process, or no descriptors.
    """
    zygote = os.getpid()
    ours, theirs = Channel.pair()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid:
        theirs.close()
        return Spare(pid, ours)
    ours.close()
    in_child()
    return _wait(theirs, zygote)


def _wait(channel: Channel, zygote: int) -> Birth:
    os.setsid()
    process.set_name("mk-spare")
    process.close_all_but([channel.fileno()])  # the zygote's other things, by which somebody sees its end
    try:
        request, fds = channel.receive()
    except Closed:
        os._exit(0)
    channel.close()
    return birth_of(request, fds, zygote)
