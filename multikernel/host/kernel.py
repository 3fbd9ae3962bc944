"""The host kernel: one event loop that has everything of a machine, from its start to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multikernel.errors import Closed, MultikernelError
from multikernel.host import address, log
from multikernel.host.lifecycle import Lifecycle
from multikernel.host.links import Broker, Party
from multikernel.host.placement import Placement
from multikernel.host.registry import Registry
from multikernel.host.request import Request
from multikernel.host.server import Server, begun, done
from multikernel.host.wire import Wire
from multikernel.image.signature import Trust
from multikernel.kernel import process
from multikernel.resources.pool import Pool
from multikernel.shm.channel import close_all
from multikernel.shm.pages import MachinePage, MachineRecord

if TYPE_CHECKING:
    from multikernel.host.client import Client
    from multikernel.host.incarnation import Incarnation
    from multikernel.host.instance import Instance
    from multikernel.host.rundir import RunDir
    from multikernel.shm.channel import Channel, Document

_ZYGOTE_STARTS_WITHIN = 30.0  # seconds
_ZYGOTE_ENDS_WITHIN = 5.0  # seconds, after its instances are gone


@dataclass(frozen=True, slots=True)
class Start:
    """What a host is started with: the machine."""

    name: str
    cpus: tuple[int, ...]
    memory: int
    persistent: bool
    trusted: tuple[bytes, ...] = ()
    """Public keys of which one must have signed an image that is loaded; none: any image is."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """What the host's process has when its loop begins; owned by `HostKernel`."""

    rundir: RunDir
    creator: Channel
    """The control connection of the program that started it."""
    creator_pidfd: int
    zygote: Channel
    zygote_pid: int


def serve(start: Start, inherited: Inherited, request: object) -> int:
    """Be the host until the machine's end. `request` is the id of the start request, to be answered.

    Returns:
        The exit status of the process: 0, or 1 when it could not start.
    """
    return asyncio.run(_serve(start, inherited, request))


async def _serve(start: Start, inherited: Inherited, request: object) -> int:
    host = HostKernel(start, inherited)
    try:
        await host.open(request)
    except (MultikernelError, OSError) as error:
        log.write(str(error))  # which the creator shows
        await host.close()
        return 1
    await host.over.wait()
    await host.shut_down(0.0)
    await host.close()
    return 0


class HostKernel:
    """A machine. Its parts: registry (what there is), lifecycle (what runs), broker (links), server (clients)."""

    def __init__(self, start: Start, inherited: Inherited) -> None:
        self.over = asyncio.Event()
        """Set when the machine is to end."""
        self.trust = Trust(start.trusted)
        self._start, self._inherited = start, inherited
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._began = time.monotonic_ns(), time.time_ns()
        self._placement = Placement([os.getpid(), inherited.zygote_pid])
        self._zygote_up = self._loop.create_future()
        self._zygote_gone = self._loop.create_future()
        self._zygote = Wire(inherited.zygote, self._on_zygote, self._on_zygote_lost)
        self._creator: Client | None = None
        self.page = MachinePage.create(start.name)
        self._pool = Pool(start.cpus, start.memory)
        self.registry = Registry(start.name, self._pool, self.page, changed=self.publish, appeared=self._appeared)
        self.broker = Broker(self.registry)
        self.lifecycle = Lifecycle(self.registry, self._zygote, spoke=self._spoke, ended=self.broker.ended)
        self.server = Server(self, self._on_client_left)

    async def open(self, request: object) -> None:
        """Begin to serve: answer the program that started the host.

        Raises:
            MultikernelError, OSError: the zygote or the control socket could not be had.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._loop.add_signal_handler(number, self.over.set)
        self._loop.add_reader(self._inherited.creator_pidfd, self._on_creator_ended)
        async with asyncio.timeout(_ZYGOTE_STARTS_WITHIN):
            await self._zygote_up
        self.server.listen(address.listen(self._inherited.rundir))
        self._creator = self.server.admit(self._inherited.creator)
        log.redirect(self._inherited.rundir)
        self.publish()
        self._creator.wire.send({"answer": request, "ok": self.describe(self._creator)}, [self.page.fd])

    def describe(self, client: Client) -> dict[str, Any]:
        """What a client that joins is told, beside the machine page."""
        return {
            "name": self._start.name,
            "pid": os.getpid(),
            "client": client.id,
            "persistent": self._start.persistent,
        }

    def show_all(self, client: Client) -> None:
        """Push the pages of all instances to a client, and from now on each new one."""
        client.watches = True
        for instance in self.registry.instances.values():
            if instance.last is not None or instance.panic is not None:
                client.tell(instance)

    def check_open(self) -> None:
        """Refuse what begins something new while the machine ends. Closed says so."""
        if self._closing:
            raise Closed(f"machine {self._start.name!r} is shutting down")

    def publish(self) -> None:
        """Write the machine's own record, and go where the cpus that are given away are not."""
        self.page.write_machine(
            MachineRecord(
                name=self._start.name,
                host_pid=os.getpid(),
                persistent=self._start.persistent,
                clients=len(self.server.clients),
                trusted=len(self.trust),
                boot_time_ns=self._began[0],
                wall_time_ns=self._began[1],
                memory=self._start.memory,
                memory_used=self.registry.memory_used(),
                cpus=self._pool.cpus,
            )
        )
        self._placement.keep_off(self.registry.given_cpus())

    async def shut_down(self, within: float) -> None:
        """End all instances, those that are active with `within` seconds to halt; the host itself ends after that."""
        self._closing = True
        await self.lifecycle.end_all(within)
        self.over.set()

    async def close(self) -> None:
        """Let everything go; last the clients, so that their end of file says that nothing is left."""
        self._zygote.close()
        await self._reap_zygote()
        process.kill_descendants()  # of a zygote that was killed
        self._inherited.rundir.remove()
        self.registry.close()
        self.page.close()
        self.server.close()
        self._inherited.creator.close()
        self._loop.remove_reader(self._inherited.creator_pidfd)
        os.close(self._inherited.creator_pidfd)

    async def _reap_zygote(self) -> None:
        """Wait for the zygote, which ends at the end of file of its channel; kill it if it does not."""
        pid = self._inherited.zygote_pid
        pidfd = os.pidfd_open(pid)
        try:
            ended = self._loop.create_future()
            self._loop.add_reader(pidfd, lambda: None if ended.done() else ended.set_result(None))
            try:
                await asyncio.wait([ended], timeout=_ZYGOTE_ENDS_WITHIN)
                if not ended.done():
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    await ended
            finally:
                self._loop.remove_reader(pidfd)
            os.waitpid(pid, 0)  # noqa: ASYNC222 - it has ended
        finally:
            os.close(pidfd)

    def _on_zygote(self, document: Document, fds: list[int]) -> None:
        if document.get("push") != "up":
            self.lifecycle.on_zygote(document, fds)
        elif not self._zygote_up.done():
            self._zygote_up.set_result(None)

    def _on_zygote_lost(self, reason: Exception | None) -> None:
        """Without it nothing boots, and nobody learns of an end: the machine ends. The system kills its children."""
        if not self._zygote_up.done():
            self._zygote_up.set_exception(MultikernelError(f"the zygote did not start: {reason or 'it ended'}"))
        self.lifecycle.on_zygote_lost()
        self.over.set()

    def _on_creator_ended(self) -> None:
        self._loop.remove_reader(self._inherited.creator_pidfd)
        if not self._start.persistent:
            self.over.set()

    def _on_client_left(self, client: Client) -> None:
        # One that goes before it watches never had the machine: a Ctrl-C came while it waited for the answer.
        if client is self._creator and not (self._start.persistent and client.watches):
            self.over.set()
        self.publish()

    def _appeared(self, instance: Instance) -> None:
        for client in self.server.clients.values():
            client.tell(instance)

    def _spoke(self, instance: Instance, document: Document, fds: list[int]) -> None:
        """An instance says something that is not about its own life: it is about links."""
        match document.get("verb"):
            case "linked" | "refused":
                self.broker.heard(instance, document, fds)
            case "connect" if instance.run is not None:
                self._connect(instance, instance.run, Request(document, fds))
            case _:
                close_all(fds)

    def _connect(self, instance: Instance, run: Incarnation, request: Request) -> None:
        """An instance asks for a link to another."""
        party = Party(instance.id, instance.name, run.epoch, run.pidfd, run.inbound)
        begun(run)
        self.server.answers.begin(request, self.broker.serve(party, request), run.push, lambda: done(run))
