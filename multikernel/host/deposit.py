"""What the host of a persistent machine keeps elsewhere, for the next: words in files, descriptors at the zygote.

Whatever changes of an instance is deposited before anybody is told of it. The descriptors are those that nobody else
has: what is loaded, the pages of the newest incarnation and the memory for its last words, the panic report. If host
and zygote are both killed they are lost, but for those that a running instance has, and hands to the next host.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from multikernel.host import log
from multikernel.host.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from multikernel.host.instance import Instance
    from multikernel.host.rundir import RunDir
    from multikernel.shm.channel import Document

CRASH_IMAGE = "crash image:"
"""What the names of a crash image's descriptors begin with."""

PAGES = ("status", "console")
"""Names of the descriptors of an incarnation's pages. The others: "image", "panic", and those of what it is given."""


class Deposit:
    """The deposit of one machine.

    Args:
        rundir: held by this process.
        send: sends a document to the zygote, with copies of descriptors; whichever zygote there is then.
    """

    def __init__(self, rundir: RunDir, send: Callable[[Document, list[int]], None]) -> None:
        self._ledger = Ledger(rundir)
        self._send = send
        self._handed: dict[int, dict[str, int]] = {}  # by instance: of which of its descriptors the zygote has copies

    @property
    def instances(self) -> int:
        """The descriptor that tells of an instance that it runs, see `RunDir.hold_for_instances`."""
        return self._ledger.instances

    def keep_machine(self, document: dict[str, Any]) -> None:
        """Keep what the machine is."""
        self._ledger.write_machine(document)

    def keep(self, instance: Instance) -> None:
        """Keep what has changed of an instance. That there is no room for it is no reason not to go on."""
        try:
            self._ledger.write(instance)
            self._hand(instance)
        except OSError as error:
            log.write(f"{instance.name}: what has changed is not kept for another host: {error}")

    def forget(self, instance: Instance) -> None:
        """It is deleted."""
        self._ledger.erase(instance.id)
        if self._handed.pop(instance.id, None) is not None:
            self._send({"verb": "keep", "instance": instance.id, "names": []}, [])

    def hand_all(self, instances: Iterable[Instance]) -> None:
        """There is another zygote, which has no descriptors yet."""
        self._handed.clear()
        for instance in instances:
            try:
                self._hand(instance)
            except OSError as error:
                log.write(f"{instance.name}: what it has is not kept for another host: {error}")

    def hold(self, key: str, document: Document, fds: Sequence[int]) -> None:
        """Have the zygote hold what is no instance, in place of what it held by that key. Never fails, but says so."""
        try:
            self._send({"verb": "hold", "key": key, "document": document}, list(fds))
        except OSError as error:
            log.write(f"the next host will not have {key}: {error}")

    def let_go(self, key: str) -> None:
        """It is no more."""
        self.hold(key, {}, [])

    def close(self) -> None:
        """Close what is open here. The files stay."""
        self._ledger.close()

    def _hand(self, instance: Instance) -> None:
        fds = descriptors(instance)
        which = {name: os.fstat(fd).st_ino for name, fd in fds.items()}  # objects have inodes of their own
        if self._handed.get(instance.id, {}) == which:
            return
        self._send({"verb": "keep", "instance": instance.id, "names": list(fds)}, list(fds.values()))
        self._handed[instance.id] = which


def descriptors(instance: Instance) -> dict[str, int]:
    """The descriptors that are kept of an instance, by name; they stay the instance's."""
    fds: dict[str, int] = {}
    for prefix, loaded in (("", instance.loaded), (CRASH_IMAGE, instance.crash_image)):
        if loaded is not None and loaded.image.fd >= 0:
            fds |= {f"{prefix}{name}": fd for name, fd in {"image": loaded.image.fd, **loaded.extras()}.items()}
    if instance.last is not None and instance.last.pages:
        fds |= zip(PAGES, instance.last.pages, strict=True)
    if instance.run is not None:
        fds |= instance.run.kept()
    if instance.panic is not None:
        fds["panic"] = instance.panic[1]
    return fds
