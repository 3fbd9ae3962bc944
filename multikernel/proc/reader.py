"""Reads the pages. Nothing is kept between two calls: each leaf is made of what the pages say when it is read."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from multikernel.resources.topology import Topology

if TYPE_CHECKING:
    from multikernel.kernel.panic import Panic
    from multikernel.proc.watched import Find, FindPanic
    from multikernel.shm.pages import ConsoleView, ImageRecord, InstanceRecord, MachineRecord, MachineView, Status


@dataclass(frozen=True)
class Seen:
    """An instance at one look: the host's record, and the pages of the newest incarnation that has any.

    epoch: which incarnation the pages are of, 0: there are none; status: its status page, read once; panic: the report
    that is kept; now_ns: CLOCK_MONOTONIC
    """

    record: InstanceRecord
    epoch: int = 0
    status: Status | None = None
    console: ConsoleView | None = None
    image: ImageRecord | None = None
    panic: Panic | None = None
    crash_image: ImageRecord | None = None
    now_ns: int = 0


class Reader:
    """What the leaves are made from."""

    def __init__(self, view: MachineView, find: Find, panics: FindPanic) -> None:
        self._view = view
        self._find = find
        self._panics = panics

    @cached_property
    def topology(self) -> Topology:
        """Of the computer that the reader runs on, read once."""
        return Topology.read()

    def now_ns(self) -> int:
        """CLOCK_MONOTONIC, which is the same for all processes."""
        return time.monotonic_ns()

    def machine(self) -> MachineRecord:
        """The machine's record."""
        return self._view.machine()

    def images(self) -> list[ImageRecord]:
        """All images that are loaded, by id."""
        return self._view.images()

    def records(self) -> list[InstanceRecord]:
        """All instances, by id."""
        return self._view.instances()

    def find(self, name: str) -> Seen | None:
        """The instance called `name`; None: there is none."""
        for record in self.records():
            if record.name == name:
                return self.look(record, self.images())
        return None

    def all(self) -> list[Seen]:
        """All instances, by id."""
        images = self.images()
        return [self.look(record, images) for record in self.records()]

    def look(self, record: InstanceRecord, images: list[ImageRecord]) -> Seen:
        """What the pages say of an instance whose record was just read."""
        image = next((each for each in images if each.id == record.image), None)
        crash = next((each for each in images if each.id == record.supervised.crash_image), None)
        watched = self._find(record.id)
        epoch = record.supervised.panic
        panic = self._panics(record.id, epoch) if epoch else None
        if watched is None:
            return Seen(record, image=image, panic=panic, crash_image=crash, now_ns=self.now_ns())
        epoch, page, console = watched
        if epoch > record.epoch:
            # Booted since the record was read. If not, the pages are of a deleted instance that had the same id.
            record = self._again(record)
            if epoch > record.epoch:
                return Seen(record, image=image, panic=panic, crash_image=crash, now_ns=self.now_ns())
        return Seen(record, epoch, page.read(), console, image, panic, crash, self.now_ns())

    def _again(self, record: InstanceRecord) -> InstanceRecord:
        newer = self._view.instance(record.id)
        return newer if newer is not None and newer.name == record.name else record
