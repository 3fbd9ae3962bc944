"""An instance's status page: what it says of itself. Written by the instance alone, read by whoever watches."""

from __future__ import annotations

import os
from typing import Any

from multikernel._core import failure, ffi, lib
from multikernel.errors import NotOwner

from .mapping import Mapping
from .records import PHASES, Counters, LinkStatus, Status


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

    def beat(self) -> None:
        """Say that the loop is alive, and on which cpu."""
        lib.mk_status_beat(self._open())

    def ipi(self, vector: int, count: int) -> None:
        """Count IPIs that were received."""
        lib.mk_status_ipi(self._open(), vector, count)

    def link(self, peer: int, capacity: int) -> Any:
        """A row for a new link: the C counters for its two ends."""
        return lib.mk_status_link(self._open(), peer, capacity)

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
        self._mapping.check_open()
        c = ffi.new("struct mk_status_copy *")
        lib.mk_status_read(self._page, c)
        links = tuple(LinkStatus(link.peer, link.capacity, Counters.of(link.counters)) for link in c.links if link.used)
        return Status(
            id=c.owner_id,
            pid=c.owner_pid,
            epoch=c.epoch,
            phase=PHASES[c.phase] if c.phase < len(PHASES) else f"unknown ({c.phase})",
            cpu=c.cpu,
            heartbeat_ns=c.heartbeat,
            phase_times_ns={name: time for name, time in zip(PHASES, c.phase_time, strict=False) if time},
            counters=sum((link.counters for link in links), Counters.of(c.counters)),
            ipi=tuple(c.ipi),
            links=links,
        )

    def close(self) -> None:
        """Unmap. Idempotent."""
        self._mapping.close()
