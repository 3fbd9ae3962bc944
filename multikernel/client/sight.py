"""What a program sees of a machine without asking: the pages that it has been given."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias

from multikernel.errors import CorruptLane
from multikernel.kernel.panic import Panic
from multikernel.shm.channel import close_all
from multikernel.shm.pages import ConsoleView, MachineView, StatusView

if TYPE_CHECKING:
    from multikernel.shm.channel import Document

Watched: TypeAlias = tuple[int, StatusView, ConsoleView]
"""The pages of one incarnation, and which that is (its epoch). They stay readable when it has ended."""


class Sight:
    """The host's page, and those of the newest incarnation of each instance; readable while the host is stopped.

    Args:
        page: descriptor of the machine object, owned by this call.

    Raises:
        CorruptLane: it is none.
    """

    def __init__(self, page: int) -> None:
        try:
            self.machine = MachineView(page)
        finally:
            os.close(page)
        self._watched: dict[int, Watched] = {}
        self._panics: dict[int, Panic] = {}

    def renew(self, page: int) -> None:
        """Look at a new host's page from now on; the descriptor is owned by this call. CorruptLane: it is none."""
        try:
            self.machine.renew(page)
        finally:
            os.close(page)

    def watched(self, instance_id: int) -> Watched | None:
        """The pages of the newest incarnation of an instance; None: none have come."""
        return self._watched.get(instance_id)

    def panic(self, instance_id: int) -> Panic | None:
        """The panic report of an instance; None: none has come."""
        return self._panics.get(instance_id)

    def take(self, document: Document, fds: list[int]) -> int | None:
        """Take a push of the host (`multikernel.host.verbs`). Returns the id of the instance that it is about.

        Pages that are replaced are unmapped when the last who reads them is done.
        """
        number, epoch = document.get("id"), document.get("epoch")
        try:
            if not isinstance(number, int):
                return None
            self._watched.pop(number, None)
            self._panics.pop(number, None)
            if document.get("panic") and fds:
                self._panics[number] = Panic.read(fds[-1])
            if document.get("push") == "incarnation" and isinstance(epoch, int) and len(fds) >= 2:
                self._watched[number] = epoch, StatusView(fds[0]), ConsoleView(fds[1])
        except CorruptLane:
            pass  # an instance that has scribbled over its pages is not to be seen
        finally:
            close_all(fds)
        return number

    def close(self) -> None:
        """Let go of all pages. Closing twice is fine."""
        self.machine.close()
        self._watched.clear()
        self._panics.clear()
