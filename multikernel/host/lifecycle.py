"""Running instances: boot, halt, kill, wait, and what happens when one ends by itself.

A step checks first and then acts; what fails on the way is taken back, and nothing is left. Steps of one instance
take turns in the order in which they were asked for (`Instance.turn`); those of different instances do not wait for
each other. What an instance does, or does not do, never holds up the loop: whatever waits for one has a deadline,
and that it has ended is the zygote's word, never its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import TYPE_CHECKING

from multikernel.errors import Closed, MultikernelError, Timeout, from_wire
from multikernel.host import ends
from multikernel.host.ending import ends_within, first_of, kill_now, make_way
from multikernel.host.failed_boot import boot_error
from multikernel.host.nursery import ZygoteLost
from multikernel.host.spawner import ASKED, COLD, Spawner
from multikernel.host.states import check_step, refused
from multikernel.host.supervision import Supervision
from multikernel.shm.channel import close_all, expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from multikernel.host.incarnation import Incarnation, Until
    from multikernel.host.instance import Instance
    from multikernel.host.kept import KeptLinks
    from multikernel.host.nursery import Nursery
    from multikernel.host.orphans import Status
    from multikernel.host.registry import Registry
    from multikernel.host.spawner import How
    from multikernel.shm.channel import Document
    from multikernel.shm.pages import End

_LAST_WAIT = 2.0  # seconds for killed instances to be reaped, before the machine goes anyway


class Lifecycle:
    """The steps that start and end incarnations.

    Args:
        registry: the instances.
        zygote: takes spawn requests.
        links: those that there are, for successors.
        spoke: called with what an incarnation says that is not about its life: its links.
        ended: called when an incarnation has ended, after its new state was published.
    """

    def __init__(
        self,
        registry: Registry,
        zygote: Nursery,
        links: KeptLinks,
        *,
        spoke: Callable[[Instance, Document, list[int]], None],
        ended: Callable[[Incarnation], None],
    ) -> None:
        self._registry, self._zygote, self._links, self._ended = registry, zygote, links, ended
        self.spawner = Spawner(registry, zygote, links, spoke=spoke, active=self._on_active)
        self.supervision = Supervision(self, registry)
        self._closing = False

    async def boot(self, instance: Instance, until: Until, within: float, *, cold: bool = False) -> Incarnation:
        """Start a new incarnation, and wait until it is as far as `until`; `cold`: in an interpreter of its own.

        Raises:
            StateError: illegal now.
            BootError: it ended before, or was not there within `within` seconds and was killed; state `failed`.
            MultikernelError, OSError: no process, descriptors or memory; the state is what it was.
        """
        async with instance.turn(within):
            check_step(instance.name, instance.state, "boot")
            self.supervision.cancel(instance)
            instance.restarts = 0
            try:
                return await self._boot(instance, until, within, COLD if cold else ASKED)
            except BaseException:
                self.give_up(instance)  # it may have been due
                raise

    async def reboot(self, instance: Instance, until: Until, within: float) -> Incarnation:
        """Have a new incarnation take the place of the one that runs, or of the one that failed.

        The old one has half of `within` seconds to halt, and is killed then; the new one has what is left of it.

        Raises:
            StateError: illegal now, or it was killed meanwhile.
            BootError, MultikernelError, OSError: as `boot`. There is no successor then, and nobody waits for one.
        """
        begin = time.monotonic()
        async with instance.turn(within):
            check_step(instance.name, instance.state, "reboot")
            self.supervision.cancel(instance)
            instance.restarts = 0
            try:
                if instance.run is not None:
                    self.expect_successor(instance)
                    await make_way(instance.run, within / 2)
                    if not instance.due:
                        raise refused(instance.name, instance.state, "reboot")
                return await self.succeed(instance, until, max(0.0, begin + within - time.monotonic()))
            except BaseException:
                self.give_up(instance)
                raise

    def expect_successor(self, instance: Instance) -> None:
        """Say that a successor of the incarnation that runs will boot: links and named memory stay for it.

        To be said before the end of that is published, and to be followed by `succeed` or `give_up`. A kill gives up.
        """
        instance.due = True
        self._registry.publish(instance)

    async def succeed(self, instance: Instance, until: Until, within: float, how: How = ASKED) -> Incarnation:
        """Boot the successor of an incarnation that has ended; the caller has the instance's turn.

        It has the id, and, if it was expected, links, named memory and messages that were not released.

        Raises:
            As `boot`. A successor that was expected still is, unless this one had become active: try again, or
            `give_up`.
        """
        return await self._boot(instance, until, within, how)

    def give_up(self, instance: Instance) -> None:
        """No successor will come: who waits for one is told so. Nothing happens if none was expected."""
        if instance.due:
            self.forgo(instance)
            self._registry.publish(instance)

    def forgo(self, instance: Instance) -> None:
        """As `give_up`, for who publishes what has become of the instance himself, right after this."""
        instance.due = False
        instance.named.clear()
        self._links.left(instance.id)

    def stand_down(self, instance: Instance) -> bool:
        """Somebody has decided what the instance is to be: take back a restart that is due. Whether one was."""
        was_due = self.supervision.cancel(instance)
        if was_due:
            self.forgo(instance)
            if not instance.deleted:
                self._registry.publish(instance)
        return was_due

    async def halt(self, instance: Instance, within: float, *, force: bool) -> End:
        """Ask the instance to finish, and kill it if it has not after `within` seconds.

        One that does not run, and is to be booted again, is not: the state is `loaded` then.

        Raises:
            StateError: it is not active.
            Timeout: it has not finished, and `force` is False: it stays active.
        """
        async with instance.turn(within):
            if instance.end is not None and self.stand_down(instance):
                self._registry.enter(instance, "loaded")
                return instance.end
            check_step(instance.name, instance.state, "halt")
            run = _running(instance)
            run.asked = "halt"
            self._registry.keep(instance)
            run.shut_down()
            if not await ends_within(run, within):
                if not force:
                    raise Timeout(
                        f"{instance.name!r} has not halted within {within:g} s and stays active. It halts when it "
                        "looks for messages next; force=True, or kill, ends it.",
                        name=instance.name,
                        timeout=within,
                    )
                run.forced = True
                run.kill()
            return await asyncio.shield(run.over)

    async def kill(self, instance: Instance) -> End:
        """End it at once, also while it boots or halts: it does not wait for its turn.

        One that does not run, and is to be booted again, is not: the state is `loaded` then.

        Raises:
            StateError: nothing of it runs, and nothing is to.
        """
        run = instance.run
        if run is None and instance.end is not None and self.stand_down(instance):
            self._registry.enter(instance, "loaded")
            return instance.end
        if run is None:
            raise refused(instance.name, instance.state, "kill")
        run.asked = "kill"
        self._registry.keep(instance)
        return await kill_now(run)

    async def wait(self, instance: Instance, within: float | None) -> End:
        """Wait for the end of the incarnation that runs; how the last one ended, if none does.

        Raises:
            StateError: it has never run.
            Timeout: it goes on.
        """
        run = instance.run
        if run is None:
            if instance.end is None:
                raise refused(instance.name, instance.state, "wait for")
            return instance.end
        if not await ends_within(run, within):
            raise Timeout(f"{instance.name!r} goes on after {within:g} s", name=instance.name, timeout=within)
        return run.over.result()

    async def end_all(self, within: float) -> None:
        """Halt what is active, with `within` seconds for all of it together; kill the rest. No boot comes after."""
        self._closing = True
        for instance in self._registry.instances.values():
            self.stand_down(instance)
        running = [(instance, instance.run) for instance in self._registry.instances.values() if instance.run]
        halting = [run for instance, run in running if within > 0 and instance.state == "active"]
        for instance, run in running:
            run.asked = "halt" if run in halting else "kill"
            self._registry.keep(instance)
        for run in halting:
            run.shut_down()
        if halting:
            await asyncio.wait([run.over for run in halting], timeout=within)
        rest = [run for _, run in running if not run.over.done()]
        for run in rest:
            run.forced = run.asked == "halt"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WAIT):
                await asyncio.gather(*map(kill_now, rest))

    def on_zygote(self, document: Document, fds: list[int]) -> None:
        """Something that the zygote says of one of its children."""
        push, key = document.get("push"), (document.get("instance"), document.get("epoch"))
        instance = next((i for i in self._registry.instances.values() if i.run and (i.id, i.epoch) == key), None)
        if instance is None:
            close_all(fds)
        elif push == "spawned":
            self._spawned(instance, _running(instance), document["pid"], fds)
        elif push == "unspawned":
            _running(instance).spawned.set_exception(from_wire(document["failed"]))
        elif push == "gone":
            self._finish(instance, document["code"], document["signal"], dumped=document["core"])

    def _spawned(self, instance: Instance, run: Incarnation, pid: int, fds: list[int]) -> None:
        try:
            (pidfd,) = expect(fds, 1, "a new process", "the host")
        except MultikernelError as error:  # it cannot be watched, so it must not live
            self._zygote.send({"verb": "kill", "pid": pid})
            run.spawned.set_exception(error)
            return
        run.started(pid, pidfd)
        self._registry.publish(instance)

    def on_zygote_lost(self) -> None:
        """The zygote is gone, and so the system kills its children; nobody is left to say how they ended."""
        for instance in self._registry.instances.values():
            if instance.run is not None:
                instance.run.kill()
                self._finish(instance, 0, signal.SIGKILL, dumped=False)

    def on_zygote_replaced(self, watch: Callable[[Incarnation], None]) -> None:
        """The zygote is gone, its children live, and there will be another: `watch` them. What it forked just now goes.

        What it was asked for and has not answered is void: such a child, if there is one, finds nobody who knows it.
        """
        for instance in self._registry.instances.values():
            if instance.run is None:
                continue
            if not instance.run.spawned.done():
                instance.run.spawned.set_exception(
                    ZygoteLost(f"the zygote was killed when it was about to start {instance.name!r}")
                )
            else:
                watch(instance.run)

    def on_end(self, run: Incarnation, status: Status | None) -> None:
        """An incarnation that the zygote does not know has ended; status: how; None: nobody knows."""
        instance = next((i for i in self._registry.instances.values() if i.run is run), None)
        if instance is not None:
            run.unseen = status is None
            code, number, dumped = status or (0, 0, False)
            self._finish(instance, code, number, dumped=dumped)

    async def _boot(self, instance: Instance, until: Until, within: float, how: How = ASKED) -> Incarnation:
        """Start an incarnation, and wait until it is as far as `until`. Raises as `boot` does."""
        if self._closing:
            raise Closed(f"machine {self._registry.machine!r} is shutting down")
        run = await self.spawner.start(instance, until, how)
        reached = run.reached[until]
        await first_of(reached, run.over, seconds=within)
        if reached.done():
            return run
        if not run.over.done():
            run.late = True
            run.kill()
        await run.over
        raise boot_error(instance, run, f"{until} within {within:g} s" if run.late else until)

    def _on_active(self, instance: Instance) -> None:
        if instance.run is not None:
            self._links.settle(instance.run)
        instance.due = False  # it is here
        self._registry.enter(instance, "active")
        self.supervision.began(instance)

    def _finish(self, instance: Instance, code: int, number: int, *, dumped: bool) -> None:
        """A process is gone: say so to everybody, then let its things go."""
        run = _running(instance)
        end, state = ends.judge(run.facts(code, number, self.supervision.kills))
        instance.console_tail, instance.run = run.unread + run.fatal, None
        if run.crashed and not run.asked:
            state = "failed"  # as it was: what counts is the end of the one that died
        else:
            instance.end = end
        instance.hung_since_ns = 0
        if run.asked == "kill":
            instance.due = False
        if state == "failed" and not run.crashed:
            self.supervision.keep_report(instance, run, dumped=dumped)
        lost = instance.loaded is not None and instance.loaded.image.fd < 0  # it alone had it, and did not bring it
        if not run.asked and not self._closing and not lost:
            self.supervision.plan(instance, run, state)
        if not instance.due:
            instance.named.clear()
        self._registry.enter(instance, state, ended=instance.end is end)
        if lost:
            self._registry.lose_image(instance)
        run.over.set_result(end)
        self._ended(run)
        self._links.ended(run)
        if not instance.due:
            self._links.left(instance.id)
        run.close()


def _running(instance: Instance) -> Incarnation:
    """Its running incarnation, where the state says that there is one."""
    if instance.run is None:
        raise AssertionError(f"{instance.name!r} is {instance.state}, and nothing runs")
    return instance.run
