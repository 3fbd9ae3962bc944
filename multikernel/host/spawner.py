"""How an incarnation comes to be: what it is given, and what is taken back if it does not come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from multikernel.host.ending import first_of
from multikernel.host.incarnation import Incarnation, Until
from multikernel.host.nursery import ZygoteLost
from multikernel.kernel.manifest import Manifest
from multikernel.shm.pages import End

if TYPE_CHECKING:
    from collections.abc import Callable

    from multikernel.host.instance import Instance, Loaded
    from multikernel.host.kept import KeptLinks
    from multikernel.host.nursery import Nursery
    from multikernel.host.registry import Registry
    from multikernel.shm.channel import Document


class How(NamedTuple):
    """What kind of boot it is."""

    by_policy: bool = False
    """Nobody has asked for it: it follows another incarnation that has ended."""
    crashed: bool = False
    """It is the crash image that boots."""
    cold: bool = False
    """In an interpreter of its own."""


ASKED = How()
COLD = How(cold=True)


class Spawner:
    """Starts incarnations.

    Args:
        registry: the instances.
        zygote: takes spawn requests.
        links: those that there are, for successors.
        spoke: called with what an incarnation says that is not about its life.
        active: called when one says that `main` is about to be entered.
    """

    def __init__(
        self,
        registry: Registry,
        zygote: Nursery,
        links: KeptLinks,
        *,
        spoke: Callable[[Instance, Document, list[int]], None],
        active: Callable[[Instance], None],
    ) -> None:
        self._registry, self._zygote, self._links = registry, zygote, links
        self._spoke, self._active = spoke, active

    def incarnation(self, instance: Instance, epoch: int, until: Until) -> Incarnation:
        """A new incarnation of an instance, which is not started yet, and may be another host's."""
        run = Incarnation(
            instance.id,
            epoch,
            until,
            on_hello=lambda: self._on_hello(instance, run),
            on_active=lambda: self._active(instance),
            on_document=lambda document, fds: self._spoke(instance, document, fds),
        )
        return run

    async def start(self, instance: Instance, until: Until, how: How) -> Incarnation:
        """Have a new incarnation started; for who has the instance's turn. Takes everything back if that fails.

        Raises:
            MultikernelError, OSError: no process, descriptors or memory.
        """
        while True:
            try:
                return await self._spawn(instance, until, how)
            except ZygoteLost:  # the next one is asked
                continue

    async def _spawn(self, instance: Instance, until: Until, how: How) -> Incarnation:
        loaded = instance.crash_image if how.crashed else instance.loaded
        if loaded is None:
            raise AssertionError("an instance that may boot has an image")
        await self._zygote.ready()
        run = self.incarnation(instance, instance.epoch + 1, until)
        run.by_policy, run.crashed = how.by_policy, how.crashed
        run.takes_over = instance.due
        instance.run = run
        instance.epoch += 1
        instance.claimed_ns = time.monotonic_ns()
        extras = {**run.extras(), **loaded.extras(), **self._registry.extras()}
        if how.crashed and instance.panic is not None:
            extras["panic"] = instance.panic[1]
        manifest = self._manifest(instance, loaded, tuple(extras))
        try:
            self._zygote.send(
                {"verb": "spawn", "instance": instance.id, "epoch": run.epoch, "manifest": manifest, "cold": how.cold},
                [*run.descriptors(loaded.image.fd, self._registry.page.fd), *extras.values()],
            )
            await first_of(run.spawned, run.over)
            if run.spawned.done():
                run.spawned.result()
        except BaseException as error:
            instance.run = None
            instance.epoch -= 1
            run.over.set_result(End("boot", 1, traceback=f"{error}\n"))  # for who wanted to kill it meanwhile
            run.close()
            self._registry.publish(instance)
            raise
        run.handed_over()
        return run

    def _on_hello(self, instance: Instance, run: Incarnation) -> None:
        self._registry.show(instance)
        if run.takes_over:
            self._links.hand_over(run, instance.name)
            self.let_go_on(instance, run)

    def let_go_on(self, instance: Instance, run: Incarnation) -> None:
        """Have a successor go on once it has answered for all links: its peers have been told of it by then.

        What is published here is what makes them look: before the successor begins to work, see csrc's resume.h.
        """
        if run.takes_over and self._links.is_through(run):
            run.takes_over = False
            self._registry.publish(instance)
            run.push({"push": "go"})

    def _manifest(self, instance: Instance, loaded: Loaded, extras: tuple[str, ...]) -> dict[str, Any]:
        return Manifest(
            id=instance.id,
            name=instance.name,
            epoch=instance.epoch,
            machine=self._registry.machine,
            cpus=instance.cpus,
            memory=instance.memory,
            cmdline=loaded.cmdline,
            directory=loaded.directory,
            image=loaded.image.describe() | {"imports": []},  # which are for watchers
            core=instance.policy.core,
            takes_over=instance.run is not None and instance.run.takes_over,
            extras=extras,
        ).to_json()
