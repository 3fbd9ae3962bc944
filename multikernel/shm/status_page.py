"""An instance's status page: what it says of itself. Written by the instance alone, read by whoever watches."""

from __future__ import annotations

import os
from typing import Any

from multikernel._core import failure, ffi, lib
from multikernel.errors import NotOwner

from .mapping import Mapping
from .records import PHASES, Counters, LinkStatus, Status

_LINK = ffi.sizeof("struct mk_link_copy")


class StatusPage:
    """The writing side. `fd` is a read-only descriptor to hand out."""

    def __init__(self, page: Any, fd: int) -> None:
        self._page = page
        self._generation = lib.mk_fork_generation()
        self.fd = fd

    @classmethod
    def create(cls, owner_id: int, epoch: int) -> StatusPage:
        """Make the page of one incarnation. OSError when there is no memory for it."""
        out = ffi.new("struct mk_status **")
        fd = lib.mk_status_create(owner_id, epoch, out)
        if fd < 0:
            raise failure(fd, "making a status page")
        return cls(out[0], fd)

    def phase(self, name: str) -> None:
        """Say how far the incarnation has come (one of PHASES)."""
        lib.mk_status_phase(self._open(), PHASES.index(name))

    def reached(self, name: str, time_ns: int) -> None:
        """As `phase`, for one that was reached before there was this page: at that time, CLOCK_MONOTONIC."""
        lib.mk_status_reached(self._open(), PHASES.index(name), time_ns)

    def beat(self) -> None:
        """Say that the loop is alive, and on which cpu."""
        lib.mk_status_beat(self._open())

    def awake(self, awake: bool) -> None:
        """Say that the event loop runs, or that it goes to sleep now. For who has one: see `Status.awake`."""
        lib.mk_status_awake(self._open(), awake)

    def ipi(self, vector: int, count: int) -> None:
        """Count IPIs that were received."""
        lib.mk_status_ipi(self._open(), vector, count)

    def link(self, peer: int, capacity: int) -> Any:
        """A row for a new link: the C counters for its two ends."""
        return lib.mk_status_link(self._open(), peer, capacity)

    def own(self) -> Any:
        """The C counters of the instance itself, for an end that is no link's."""
        return lib.mk_status_counters(self._open())

    def unlink(self, counters: Any) -> None:
        """The link is closed: its counts go into the instance's."""
        lib.mk_status_unlink(self._open(), counters)

    def close(self) -> None:
        """Unmap; watchers keep the last values. Idempotent."""
        page, self._page = self._page, None
        if page is not None and self._generation == lib.mk_fork_generation():
            lib.mk_status_free(page)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _open(self) -> Any:
        if self._page is None or self._generation != lib.mk_fork_generation():
            raise NotOwner("this status page is closed, or belongs to the process that this one was forked from")
        return self._page


class StatusView:
    """The reading side, from a descriptor; that stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._mapping = Mapping.peer(fd, "status")
        self._page = self._mapping.cast("const struct mk_status *")

    def read(self) -> Status:
        """What it says now. Never waits, whatever has become of the writer."""
        c = ffi.new("struct mk_status_copy *")
        lib.mk_status_read(self._mapping.opened(self._page), c)
        counters = [_words(c.counters)]
        links = []
        for i, used in enumerate(memoryview(ffi.buffer(c.links)).cast("I")[:: _LINK // 4].tolist()):
            if used:
                link = c.links[i]
                counters.append(_words(link.counters))
                links.append(LinkStatus(link.peer, link.capacity, Counters(*counters[-1])))
        return Status(
            id=c.owner_id,
            pid=c.owner_pid,
            epoch=c.epoch,
            phase=PHASES[c.phase] if c.phase < len(PHASES) else f"unknown ({c.phase})",
            cpu=c.cpu,
            awake=bool(c.awake),
            heartbeat_ns=c.heartbeat,
            phase_times_ns={name: time for name, time in zip(PHASES, c.phase_time, strict=False) if time},
            counters=Counters(*map(sum, zip(*counters, strict=True))),
            ipi=tuple(ffi.unpack(c.ipi, lib.MK_VECTORS)),
            links=tuple(links),
        )

    def close(self) -> None:
        """Unmap. Idempotent."""
        self._mapping.close()
        self._page = None


def _words(counters: Any) -> list[int]:
    """All of a struct mk_counters_copy, in the order of `Counters`."""
    words: list[int] = ffi.unpack(ffi.cast("uint64_t *", ffi.addressof(counters)), len(Counters.__dataclass_fields__))
    return words
