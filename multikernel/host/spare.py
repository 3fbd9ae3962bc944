"""A child that the zygote has forked ahead: when an instance is to boot, it only has to be told what it is.

A fork copies page tables, and the child then takes a fault for each page that it touches. That is more than half of a
warm boot, and is done while nobody waits for it: the child rehearses a boot before it waits for its own.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
from typing import TYPE_CHECKING, NamedTuple

from multikernel.errors import Closed, MultikernelError
from multikernel.host import log
from multikernel.kernel import process
from multikernel.kernel.manifest import Manifest
from multikernel.kernel.protocol import Descriptors
from multikernel.kernel.rehearsal import rehearse
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

    def fileno(self) -> int:
        """Readable when it has ended, or is on its way: it is on the cpus of the instance that it was told to be."""
        return self._channel.fileno()

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
    told = select.poll()
    told.register(channel, select.POLLIN)
    try:
        process.default_signals()
        with contextlib.closing(rehearse()) as steps:
            while not told.poll(0) and next(steps, steps) is not steps:
                pass
    except (MultikernelError, OSError) as error:  # it may boot nevertheless, or say why not to whoever waits for it
        log.write(f"a spare has not rehearsed: {error}")
    gc.collect()  # what the error held: to be closed before its descriptors are others'
    process.close_all_but([channel.fileno()])  # the zygote's other things, by which somebody sees its end
    try:
        request, fds = channel.receive()
    except Closed:
        os._exit(0)
    channel.detach()  # it is closed with all that an instance is not to have, and that says that it is on its way
    return birth_of(request, fds, zygote)
