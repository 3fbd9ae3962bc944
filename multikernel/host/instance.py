"""An instance as its host keeps it, from create to delete."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from multikernel.errors import NotFound, Timeout
from multikernel.host.named import NamedMemory
from multikernel.shm.pages import End, InstanceRecord, Supervised

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from multikernel.host.incarnation import Incarnation
    from multikernel.host.policy import Policy
    from multikernel.host.states import State
    from multikernel.image.image import Image
    from multikernel.image.initrd import Initrd


LONGEST_QUEUE = 20.0
"""Seconds that a step without a time-out of its own waits for those before it."""


@dataclass(slots=True)
class Loaded:
    """An image, and what it was loaded with."""

    image: Image
    image_id: int
    signature: str
    """Id of the key that has signed the image, or that it is unsigned or unchecked."""
    cmdline: str
    directory: str
    initrd: Initrd | None = None

    def extras(self) -> dict[str, int]:
        """The descriptors that an incarnation gets besides those of every one, by name."""
        return {} if self.initrd is None else self.initrd.extra()

    @property
    def size(self) -> int:
        """Bytes that it takes of the instance's memory."""
        return self.image.size + (self.initrd.size if self.initrd else 0)

    def close(self) -> None:
        """Close what is its own; the image is the table's."""
        if self.initrd is not None:
            self.initrd.close()


@dataclass(slots=True, eq=False)
class Instance:
    """Everything the host knows of an instance. Changed by `multikernel.host.lifecycle` alone."""

    id: int
    name: str
    cpus: tuple[int, ...]
    memory: int
    exclusive: bool
    policy: Policy
    state: State = "ready"
    state_time_ns: int = field(default_factory=time.monotonic_ns)
    epoch: int = 0
    loaded: Loaded | None = None
    end: End | None = None
    console_tail: str = ""
    run: Incarnation | None = None
    """The running incarnation: from the beginning of its boot until its end is published."""
    last: Incarnation | None = None
    """The newest one that has pages to be seen; running or not."""
    restarts: int = 0
    """How often it was booted again in a row, by its policy."""
    restart: asyncio.TimerHandle | None = None
    """The one that is due, with its time."""
    restart_at_ns: int = 0
    panic: tuple[int, int] | None = None
    """The report that is kept: of which epoch, and its descriptor."""
    crash_image: Loaded | None = None
    """What boots in its place when it dies by itself."""
    after_crash: float | None = None
    """While that is due or runs: for how long the dead one had run, in seconds, if it is booted again; else None."""
    crash_due: bool = False
    """Whether what is due is the crash image."""
    hung_since_ns: int = 0
    """Its last sign of life, once it is hung; 0: it is not."""
    claimed_ns: int = 0
    """When its newest boot began."""
    named: NamedMemory = field(default_factory=NamedMemory)
    deleted: bool = False
    due: bool = False
    """Whether a successor of its last incarnation is about to boot; its links wait for that."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @contextlib.asynccontextmanager
    async def turn(self, within: float = LONGEST_QUEUE) -> AsyncIterator[None]:
        """Hold it for a step. Steps have it one by one, in the order in which they were asked for.

        kill and wait do without: they end, or outlast, what has it.

        Raises:
            Timeout: another step goes on after `within` seconds.
            NotFound: the instance was deleted meanwhile.
        """
        try:
            async with asyncio.timeout(within):
                await self._turn.acquire()
        except TimeoutError:
            raise Timeout(
                f"{self.name!r} is in the middle of another step, asked for by somebody else, and that goes on after "
                f"{within:g} s. `kill` ends a boot or a halt that hangs.",
                name=self.name,
                timeout=within,
            ) from None
        try:
            if self.deleted:
                raise NotFound(f"instance {self.name!r} has been deleted meanwhile", name=self.name)
            yield
        finally:
            self._turn.release()

    def record(self) -> InstanceRecord:
        """As the machine page says it."""
        return InstanceRecord(
            id=self.id,
            name=self.name,
            state=self.state,
            pid=self.run.pid if self.run else 0,
            epoch=self.epoch,
            state_time_ns=self.state_time_ns,
            memory=self.memory,
            initrd=self.loaded.initrd.size if self.loaded and self.loaded.initrd else 0,
            due=self.due,
            memories=len(self.named),
            named=self.named.size,
            image=self.loaded.image_id if self.loaded else 0,
            exclusive=self.exclusive,
            cpus=self.cpus,
            end=self.end,
            cmdline=self.loaded.cmdline if self.loaded else "",
            console_tail=self.console_tail,
            supervised=self._supervised(),
        )

    def keep_report(self, epoch: int, fd: int) -> None:
        """Keep a panic report, in the place of the one before it; `fd` is owned from here on."""
        self.drop_report()
        self.panic = epoch, fd

    def drop_report(self) -> None:
        """Close the report that is kept, if one is."""
        if self.panic is not None:
            os.close(self.panic[1])
            self.panic = None

    def _supervised(self) -> Supervised:
        policy = self.policy
        return Supervised(
            restart=policy.restart.when,
            restarts=self.restarts,
            restart_limit=policy.restart.limit,
            restart_at_ns=self.restart_at_ns,
            watchdog_ns=int((policy.watchdog or 0.0) * 1e9),
            on_hang=policy.on_hang,
            hung_since_ns=self.hung_since_ns,
            core=policy.core,
            panic=self.panic[0] if self.panic else 0,
            claimed_ns=self.claimed_ns,
            crash_image=self.crash_image.image_id if self.crash_image else 0,
            crashed=self.run is not None and self.run.crashed,
        )
