"""What the host does for instances without being asked: it watches, keeps reports of the dead, boots successors.

A user's own step decides: whatever somebody does to an instance whose restart is due takes that back. A boot that
somebody has asked for and that fails is told to him, and not tried again.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from multikernel.errors import BootError, Closed, MultikernelError
from multikernel.host import log, report
from multikernel.host.oom import OomKills
from multikernel.host.spawner import How
from multikernel.host.watchdog import Watchdog

if TYPE_CHECKING:
    from multikernel.host.incarnation import Incarnation
    from multikernel.host.instance import Instance
    from multikernel.host.lifecycle import Lifecycle
    from multikernel.host.registry import Registry
    from multikernel.host.states import State

_WITHIN = 30.0  # seconds for one that is booted again to be active, as for a boot that is asked for


class Supervision:
    """Watchdogs, reports and restarts of all instances.

    Args:
        lifecycle: boots successors.
        registry: publishes what is due.
    """

    def __init__(self, lifecycle: Lifecycle, registry: Registry) -> None:
        self._lifecycle, self._registry = lifecycle, registry
        self._watchdog = Watchdog(self._on_sign, self._on_hung)
        self.kills = OomKills.of_this_process()
        self._tasks: set[asyncio.Task[None]] = set()

    def began(self, instance: Instance) -> None:
        """Its new incarnation is active: watch it."""
        if instance.run is not None:
            self._watchdog.watch(instance, instance.run)

    def keep_report(self, instance: Instance, run: Incarnation, *, dumped: bool) -> None:
        """Make the panic report of `run`, whose end is the instance's last."""
        if instance.end is None:
            raise AssertionError("an incarnation that has ended has an end")
        try:
            made = report.seal(report.make(instance, run, instance.end, dumped=dumped))
        except OSError as error:  # no memory, no descriptor: it has ended all the same
            log.write(f"no panic report of {instance.name}: {error}")
        else:
            self._registry.keep_report(instance, run.epoch, made)

    def plan(self, instance: Instance, run: Incarnation, state: State) -> None:
        """Decide what follows `run`, which has ended by itself and leads to `state`; before that is published."""
        if not run.booted and not run.by_policy:
            return  # somebody has asked for this boot, and is told
        ran = instance.after_crash if run.crashed else self._ran_if_followed(instance, run, state)
        instance.after_crash = None
        if state == "failed" and instance.crash_image is not None and not run.crashed:
            instance.after_crash = ran
            instance.due = instance.crash_due = True
            instance.restart = asyncio.get_running_loop().call_later(0, self._begin, instance)
        elif ran is not None:
            self._plan_next(instance, ran)
        else:
            instance.due = False

    def _ran_if_followed(self, instance: Instance, run: Incarnation, state: State) -> float | None:
        """For how many seconds `run` was active, if its policy wants another one after it; else None."""
        when = instance.policy.restart.when
        rebooted = run.hung_for > 0 and instance.policy.on_hang == "reboot"
        wanted = rebooted or when == "always" or (when == "on-failure" and state == "failed")
        return run.seconds_active() if wanted else None

    def _plan_next(self, instance: Instance, ran: float) -> None:
        """Have the instance booted again after its wait, the last incarnation having run for `ran` seconds."""
        rule = instance.policy.restart
        if ran >= rule.good_after:
            instance.restarts = 0
        if instance.restarts >= rule.limit:
            log.write(f"{instance.name} was restarted {rule.limit} times in a row, and is not restarted again")
            self._lifecycle.forgo(instance)
            return
        wait = rule.wait_before(instance.restarts)
        instance.restarts += 1
        instance.due = True
        instance.restart_at_ns = time.monotonic_ns() + int(wait * 1e9)
        instance.restart = asyncio.get_running_loop().call_later(wait, self._begin, instance)

    def resume(self, instance: Instance) -> None:
        """Have a successor booted that the last host had in mind, when it had; at once, if that has passed."""
        if instance.due and instance.run is None:
            wait = max(0.0, (instance.restart_at_ns - time.monotonic_ns()) / 1e9)
            instance.restart = asyncio.get_running_loop().call_later(wait, self._begin, instance)

    def cancel(self, instance: Instance) -> bool:
        """Take its time from a restart that is due, which the caller begins, or takes back. Whether one was due."""
        due = instance.restart is not None
        if instance.restart is not None:
            instance.restart.cancel()
        instance.restart, instance.restart_at_ns, instance.crash_due = None, 0, False
        return due

    def _on_sign(self, instance: Instance) -> None:
        """It has become hung, or is alive again."""
        self._registry.publish(instance)
        self._registry.announcer.tell("hung" if instance.hung_since_ns else "alive", instance)

    def _on_hung(self, instance: Instance, run: Incarnation, silent: float) -> None:
        if instance.policy.on_hang != "report" and not run.asked:
            run.hung_for = silent
            run.abort()

    def _begin(self, instance: Instance) -> None:
        task = asyncio.ensure_future(self._follow(instance))
        self._tasks.add(task)  # the loop alone would let it be collected
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, instance: Instance) -> None:
        """Boot the successor that is due, unless somebody has decided otherwise meanwhile."""
        try:
            async with instance.turn():
                crashed = instance.crash_due
                if self.cancel(instance):
                    await self._lifecycle.succeed(instance, "active", _WITHIN, How(by_policy=True, crashed=crashed))
        except Closed:  # the machine is shutting down
            self._lifecycle.give_up(instance)
        except BootError as error:  # what follows was decided, and published, as after any other end
            log.write(str(error))
        except (MultikernelError, OSError) as error:
            log.write(f"{instance.name} could not be booted again: {error}")
            if instance.due and instance.run is None and not instance.deleted:
                self._plan_next(instance, 0.0)
                self._registry.publish(instance)
