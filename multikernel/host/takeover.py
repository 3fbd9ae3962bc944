"""How a new host gets the machine of one that was killed: what was written down, what the zygote has, what still lives.

    the zygote lives    it has the images and pages, and knows how its children have ended meanwhile
    it does not         the instances that run bring them; of what has ended nobody knows how

Either way an instance is told from another process by its pid and the time when it was started, as the last host wrote
them down; and it comes itself, over the control socket, for a channel and a lane to its new host (`adopt`). Until then
it is supervised by its pidfd: it may be busy for as long as it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

from multikernel.errors import MultikernelError, NotFound
from multikernel.host import log
from multikernel.host.deposit import CRASH_IMAGE, PAGES
from multikernel.host.ending import make_way
from multikernel.host.input import WRITE
from multikernel.host.instance import Instance, Loaded
from multikernel.host.policy import Policy
from multikernel.host.request import check_protocol
from multikernel.image import Image
from multikernel.image.initrd import EXTRA, Initrd
from multikernel.kernel import process
from multikernel.shm.channel import close_all
from multikernel.shm.pages import End

if TYPE_CHECKING:
    from multikernel.host.answers import Answer
    from multikernel.host.client import Client
    from multikernel.host.incarnation import Incarnation
    from multikernel.host.kept import KeptLinks
    from multikernel.host.lifecycle import Lifecycle
    from multikernel.host.orphans import Orphans, Status
    from multikernel.host.registry import Registry
    from multikernel.host.request import Request
    from multikernel.shm.channel import Document


_MAKES_WAY_WITHIN = 15.0  # seconds for one that is being rebooted to halt, as it has by default
_COMES_WITHIN = 5.0  # seconds for an instance to come to its new host, before a watchdog looks at it all the same


class TakeOver:
    """The instances of the last host.

    Args:
        registry: where they go.
        lifecycle: which runs them from now on.
        orphans: watches those that are not our zygote's children.
        links: those that there are.
    """

    def __init__(self, registry: Registry, lifecycle: Lifecycle, orphans: Orphans, links: KeptLinks) -> None:
        self._registry, self._lifecycle, self._orphans, self._links = registry, lifecycle, orphans, links
        self.done = False
        """Whether all is taken over."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: dict[int, dict[str, int]] = {}
        self._held: dict[str, tuple[Document, list[int]]] = {}
        self._living: dict[tuple[int, int], int] = {}
        self._ended: dict[tuple[int, int], Status] = {}

    def heard(self, document: Document, fds: list[int]) -> None:
        """What the zygote says of what it has, and of ends meanwhile; before `restore`."""
        if document.get("push") == "kept":
            if len(fds) == len(document["names"]):
                self._kept[document["instance"]] = dict(zip(document["names"], fds, strict=True))
            else:
                log.write(f"what the last host had of instance {document['instance']} is lost: no descriptors left")
            return
        if document.get("push") == "held" and fds:
            self._held[document["key"]] = document["document"], fds
            return
        close_all(fds)
        if document.get("push") == "gone":
            key = document["instance"], document["epoch"]
            self._living.pop(key, None)
            self._ended[key] = document["code"], document["signal"], document["core"]
        if document.get("push") != "inherit":
            return
        self._living = {(instance, epoch): pid for instance, epoch, pid in document["living"]}
        self._ended = {
            (instance, epoch): (code, number, core) for instance, epoch, code, number, core in document["ended"]
        }

    def lost_zygote(self) -> None:
        """The zygote is gone before `restore`: what it has said stays true, but nobody says how those end that lived.

        By now they have other parents, and their pids may be others': they are found by what was written down.
        """
        self._living = {}

    def restore(self, records: list[dict[str, Any]]) -> None:
        """Take over all instances that the last host wrote down.

        Raises:
            MultikernelError: what it wrote is no record of an instance.
        """
        for record in records:
            try:
                self._restore(record)
            except (KeyError, TypeError, ValueError) as error:
                raise MultikernelError(f"what the last host wrote down of an instance is none: {error!r}") from error
        for pid in self._living.values():  # forked when the last host was killed, and nobody knows them
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._pass_over(*self._living, *self._ended)
        for fds in self._kept.values():
            close_all(fds.values())
        self._kept, self._living, self._ended = {}, {}, {}
        self._restore_held()
        self.done = True

    def _pass_over(self, *used: tuple[int, int]) -> None:
        """Give no epoch a second time: what the zygote says of the end of one must not be taken for another's."""
        for instance in self._registry.instances.values():
            epochs = [epoch for instance_id, epoch in used if instance_id == instance.id]
            if instance.run is None and max(epochs, default=0) > instance.epoch:
                instance.epoch = max(epochs)
                self._registry.publish(instance)

    async def adopt(self, client: Client, request: Request) -> Answer:
        """An instance comes for its new host.

        Raises:
            NotFound: it is none of this machine's, whatever it says.
            StateError: it was here before.
        """
        check_protocol(request)
        instance_id, epoch = request.integer("instance"), request.integer("epoch")
        instance = next((i for i in self._registry.instances.values() if i.id == instance_id), None)
        run = instance.run if instance is not None else None
        if instance is None or run is None or (run.pid, run.epoch) != (client.pid, epoch):
            raise NotFound(
                f"process {client.pid} is not instance {instance_id}, incarnation {epoch}, of machine "
                f"{self._registry.machine!r}, as far as its host knows",
                instance=instance_id,
            )
        await self._take_what_it_brings(instance, run, request)
        return {}, run.adopt(self._registry.page.fd)

    async def _take_what_it_brings(self, instance: Instance, run: Incarnation, request: Request) -> None:
        """Its image and the like, where nobody else has them by now."""
        names = request.texts("names")
        brought = dict(zip(names, request.take(len(names)), strict=True))
        try:
            loaded = instance.loaded
            if loaded is not None and loaded.image.fd < 0 and not run.crashed and "image" in brought:
                image = await asyncio.to_thread(Image.from_description, loaded.image.describe(), brought["image"])
                if loaded.image.fd < 0:  # another instance has the same image, and may have been quicker
                    loaded.image.fd = image.fd
                    del brought["image"]
            if loaded is not None and loaded.initrd is None and not run.crashed:
                loaded.initrd = _initrd(brought)
            if "crash" in brought:
                run.take_crash(brought.pop("crash"))
            if WRITE in brought:
                run.input.resume(brought.pop(WRITE))
        finally:
            close_all(brought.values())
        self._registry.publish(instance)

    def _restore_held(self) -> None:
        """Take over links and named memory: those of who is there, or is to come."""
        there = {instance.id: instance for instance in self._registry.instances.values()}
        held, self._held = self._held, {}
        remember: dict[int, Instance] = {}
        for key, (document, fds) in held.items():
            if key.startswith("link:"):
                self._links.restore(document, fds, there.get)
                continue
            instance = there.get(document["instance"])
            if instance is not None and (instance.run is not None or instance.due):
                instance.named.restore(document["name"], document["size"], fds[0])
                remember[instance.id] = instance
            else:
                close_all(fds)
        for instance in remember.values():
            self._registry.publish(instance)

    def take_memories(self, instance: Instance, request: Request) -> None:
        """Its named memories, where nobody else has them by now."""
        with contextlib.closing(request), contextlib.suppress(MultikernelError):
            names = request.texts("names")
            for name, fd in zip(names, request.take(len(names)), strict=True):
                instance.named.bring(name, fd)
            self._registry.publish(instance)

    def _restore(self, record: dict[str, Any]) -> None:
        plain, ran = record["plain"], record["run"]
        policy = Policy.from_json(record["policy"])
        instance = Instance(**{**plain, "cpus": tuple(plain["cpus"])}, policy=policy)
        instance.end = End(**record["end"]) if record["end"] else None
        kept = self._kept.pop(instance.id, {})
        instance.loaded = _loaded(record["loaded"], kept)
        crash_kept = {name.removeprefix(CRASH_IMAGE): kept.pop(name) for name in list(kept) if CRASH_IMAGE in name}
        if "image" in crash_kept:  # else it is lost
            instance.crash_image = _loaded(record["crash_image"], crash_kept)
        self._registry.restore(instance)
        if record["panic"] and "panic" in kept:
            instance.panic = record["panic"], kept.pop("panic")
        pages = [kept.pop(name) for name in PAGES if name in kept]
        if ran:
            self._resume(instance, ran, pages, kept.pop("crash", -1))
            if instance.run is not None and WRITE in kept:
                instance.run.input.resume(kept.pop(WRITE))
        else:
            self._show(instance, pages)
            if instance.loaded is not None and instance.loaded.image.fd < 0:
                log.write(f"the image of {instance.name!r} went with the last host and its zygote: load it again")
                self._registry.lose_image(instance)
            self._lifecycle.supervision.resume(instance)
            self._registry.publish(instance)
        close_all(kept.values())

    def _resume(self, instance: Instance, ran: dict[str, Any], pages: list[int], crash: int) -> None:
        """Take over what runs; or what has ended by now, and how."""
        key = instance.id, instance.epoch
        child = self._living.pop(key, 0)
        pid = ran["pid"] or child
        pidfd = _open(pid, ran["started"]) if pid and key not in self._ended else -1
        run = instance.run = self._lifecycle.spawner.incarnation(instance, instance.epoch, "active")
        run.by_policy, run.crashed, run.asked = ran["by_policy"], ran["crashed"], ran["asked"]
        run.take_over(pid, pidfd, pages, crash, instance.state_time_ns)
        if pages:
            instance.last = run
        self._registry.publish(instance)
        if instance.due:  # its end is wanted, and after it the next one
            run.asked = "halt"
            run.over.add_done_callback(lambda _: self._lifecycle.supervision.resume(instance))
        if pidfd < 0 and not child:
            self._lifecycle.on_end(run, self._ended.get(key))
            return
        if not child:  # else the zygote says how it ends, if it has not ended just now
            self._orphans.watch(run)
        if run.asked == "halt":  # the last host may not have been heard
            run.shut_down()
        if instance.due:
            self._go_on_with_reboot(instance, run)
        elif instance.state not in ("active", "standby"):
            run.end("its host was killed while it booted: boot it again")
        else:
            # What it says of itself goes for its old lane, until it has come; and one that is stopped does not come.
            run.came.add_done_callback(lambda _: self._lifecycle.supervision.began(instance))
            asyncio.get_running_loop().call_later(_COMES_WITHIN, run.wait_no_longer)

    def _go_on_with_reboot(self, instance: Instance, run: Incarnation) -> None:
        """End what runs, which another incarnation is to follow, or which was to follow another."""
        task = asyncio.ensure_future(make_way(run, _MAKES_WAY_WITHIN if instance.state == "active" else 0.0))
        self._tasks.add(task)  # the loop alone would let it be collected
        task.add_done_callback(self._tasks.discard)

    def _show(self, instance: Instance, pages: list[int]) -> None:
        """Show the pages of an incarnation that ended under another host. None: nothing."""
        if pages:
            instance.last = self._lifecycle.spawner.incarnation(instance, instance.epoch, "active")
            instance.last.close()
            instance.last.pages = pages


def _loaded(record: dict[str, Any] | None, kept: dict[str, int]) -> Loaded | None:
    """What an instance has loaded, with the descriptors that were kept for it; without, if the image was not."""
    if record is None:
        return None
    image = Image(**record["image"], fd=kept.pop("image", -1))
    return Loaded(image, 0, record["signature"], record["cmdline"], record["directory"], _initrd(kept))


def _initrd(kept: dict[str, int]) -> Initrd | None:
    for name in kept:
        if name.startswith(f"{EXTRA}:"):
            return Initrd.received(name.partition(":")[2], kept.pop(name))
    return None


def _open(pid: int, started: int) -> int:
    """A pidfd of the process that was started then (0: whenever); -1 if it has ended and is reaped."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    if started and process.started(pid) != started:  # looked at after it is held: another has its pid
        os.close(pidfd)
        return -1
    return pidfd
