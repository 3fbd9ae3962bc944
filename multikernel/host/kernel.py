"""The host kernel: one event loop that has everything of a machine, from its start to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multikernel.errors import Closed, MultikernelError
from multikernel.host import address, ledger, log
from multikernel.host.client import FIRST_CLIENT_ID
from multikernel.host.deposit import Deposit
from multikernel.host.events import Announcer
from multikernel.host.kept import KeptLinks
from multikernel.host.lifecycle import Lifecycle
from multikernel.host.links import Broker
from multikernel.host.nursery import Nursery
from multikernel.host.orphans import Orphans
from multikernel.host.placement import Placement
from multikernel.host.registry import Registry
from multikernel.host.request import Request
from multikernel.host.server import Server
from multikernel.host.takeover import TakeOver
from multikernel.image.signature import Trust
from multikernel.kernel import process
from multikernel.kernel.protocol import PROTOCOL
from multikernel.resources.pool import Pool
from multikernel.shm.channel import close_all
from multikernel.shm.pages import MachinePage, MachineRecord

if TYPE_CHECKING:
    from multikernel.host.answers import Answer
    from multikernel.host.client import Client
    from multikernel.host.incarnation import Incarnation
    from multikernel.host.instance import Instance
    from multikernel.host.rundir import RunDir
    from multikernel.shm.channel import Channel, Document


@dataclass(frozen=True, slots=True)
class Start:
    """What a host is started with: the machine."""

    name: str
    cpus: tuple[int, ...]
    memory: int
    persistent: bool
    trusted: tuple[bytes, ...]
    """Public keys of which one must have signed an image that is loaded; none: any image is."""
    preload: tuple[str, ...]
    """Modules that its zygotes import ahead."""
    takes_over: bool
    """Whether the machine is there already, and has lost its host."""
    began: tuple[int, int]
    """When it began, by CLOCK_MONOTONIC and by the wall clock, ns."""
    first_client: int
    """The first id that no client has had."""

    @classmethod
    def of(cls, machine: dict[str, Any], *, takes_over: bool) -> Start:
        """From what was asked for, or what the last host wrote down (`document`)."""
        return cls(
            machine["name"],
            tuple(machine["cpus"]),
            machine["memory"],
            machine["persistent"],
            tuple(map(bytes.fromhex, machine["trusted"])),
            tuple(machine["preload"]),
            takes_over,
            tuple(machine.get("began", (time.monotonic_ns(), time.time_ns()))),
            machine.get("first_client", FIRST_CLIENT_ID),
        )

    def document(self, first_client: int) -> dict[str, Any]:
        """As it is written down."""
        return {
            "name": self.name,
            "cpus": list(self.cpus),
            "memory": self.memory,
            "persistent": self.persistent,
            "trusted": [key.hex() for key in self.trusted],
            "preload": list(self.preload),
            "began": list(self.began),
            "first_client": first_client,
        }


@dataclass(frozen=True, slots=True)
class Inherited:
    """What the host's process has when its loop begins; owned by `HostKernel`."""

    rundir: RunDir
    zygote: Channel
    zygote_pid: int
    creator: Channel | None = None
    """The control connection of the program that started it; None: the zygote did."""
    creator_pidfd: int = -1


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
        await host.close(ended=not start.takes_over)
        return 1
    await host.over.wait()
    await host.shut_down(0.0)
    await host.close(ended=True)
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
        self._creator: Client | None = None
        self.nursery = Nursery(
            inherited.zygote,
            inherited.zygote_pid,
            inherited.rundir,
            persistent=start.persistent,
            heard=self._on_zygote,
            lost=self._on_zygote_lost,
            renewed=self._on_zygote_renewed,
        )
        self._placement = Placement(lambda: (os.getpid(), self.nursery.pid))
        self.page = MachinePage.create(start.name)
        self._pool = Pool(start.cpus, start.memory)
        self.deposit = Deposit(inherited.rundir, self.nursery.send) if start.persistent else None
        self.announcer = Announcer()
        self.registry = Registry(
            start.name,
            self._pool,
            self.page,
            changed=self.publish,
            appeared=self._appeared,
            announcer=self.announcer,
            deposit=self.deposit,
        )
        self.links = KeptLinks(self.deposit, self.registry.name_in_report)
        self.broker = Broker(self.registry, self.links)
        self.lifecycle = Lifecycle(self.registry, self.nursery, self.links, spoke=self._spoke, ended=self.broker.ended)
        self.orphans = Orphans(self.lifecycle.on_end)
        self.takeover = TakeOver(self.registry, self.lifecycle, self.orphans, self.links)
        self.server = Server(self, self._on_client_left, start.first_client, self._keep_machine)

    async def open(self, request: object) -> None:
        """Begin to serve: answer the program that started the host.

        Raises:
            MultikernelError, OSError: the zygote or the control socket could not be had.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._loop.add_signal_handler(number, self.over.set)
        if self._start.persistent:
            self._loop.add_signal_handler(signal.SIGCHLD, self.orphans.reap)
        if self._inherited.creator_pidfd >= 0:
            self._loop.add_reader(self._inherited.creator_pidfd, self._on_creator_ended)
        await self.nursery.ready()
        if self._start.takes_over:
            self.takeover.restore(ledger.read_instances(self._inherited.rundir))
            self._inherited.rundir.free_address()
        self.server.listen(address.listen(self._inherited.rundir))
        log.redirect(self._inherited.rundir)
        self.publish()
        self.nursery.send({"verb": "serving"})
        if self._inherited.creator is not None:
            client = self.server.admit(self._inherited.creator)
            if not self._start.takes_over:
                self._creator = client
            client.wire.send({"answer": request, "ok": self.describe(client)}, [self.page.fd])
        if self._start.takes_over:
            self.links.call_strangers()
            log.write(f"host {os.getpid()} has taken over, with {len(self.registry.instances)} instances")

    def describe(self, client: Client) -> dict[str, Any]:
        """What a client that joins is told, beside the machine page."""
        return {
            "name": self._start.name,
            "pid": os.getpid(),
            "client": client.id,
            "persistent": self._start.persistent,
            "protocol": PROTOCOL,
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
                clients=len(self.server.clients) - self.announcer.listeners,
                trusted=len(self.trust),
                boot_time_ns=self._start.began[0],
                wall_time_ns=self._start.began[1],
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

    async def close(self, *, ended: bool) -> None:
        """Let everything go; last the clients, so that their end of file says that nothing is left.

        Args:
            ended: whether the machine has ended. Else it is left to the next host.
        """
        self.orphans.close()
        if ended:
            await self.nursery.close()
            process.kill_descendants()  # of a zygote that was killed
            self._inherited.rundir.remove()
        self.links.close()
        self.registry.close()
        if self.deposit is not None:
            self.deposit.close()
        self.page.close()
        self.server.close()
        if self._inherited.creator is not None:
            self._inherited.creator.close()
        if self._inherited.creator_pidfd >= 0:
            self._loop.remove_reader(self._inherited.creator_pidfd)
            os.close(self._inherited.creator_pidfd)

    def _keep_machine(self, first_client: int) -> None:
        """No client has an id from `first_client` on: for the next host."""
        if self.deposit is not None:
            self.deposit.keep_machine(self._start.document(first_client))

    def _on_zygote(self, document: Document, fds: list[int]) -> None:
        if self._start.takes_over and not self.takeover.done:
            self.takeover.heard(document, fds)
        else:
            self.lifecycle.on_zygote(document, fds)

    def _on_zygote_lost(self, _reason: Exception | None) -> None:
        """Without it nothing boots, and nobody learns of an end.

        An ephemeral machine ends: the system kills the zygote's children. In a persistent one they are watched here.
        """
        if self._start.persistent and not self._closing:
            self.takeover.lost_zygote()
            self.lifecycle.on_zygote_replaced(self.orphans.watch)
        else:
            self.lifecycle.on_zygote_lost()
            self.over.set()

    def _on_zygote_renewed(self) -> None:
        self._placement.renew()
        if self.deposit is not None:
            self.deposit.hand_all(self.registry.instances.values())
            self.links.hand_all()
            for instance in self.registry.instances.values():
                instance.named.hand_all()

    def _on_creator_ended(self) -> None:
        self._loop.remove_reader(self._inherited.creator_pidfd)
        if not self._start.persistent:
            self.over.set()

    def _on_client_left(self, client: Client) -> None:
        # One that goes before it watches never had the machine: a Ctrl-C came while it waited for the answer.
        if client is self._creator and not (self._start.persistent and client.watches):
            self.over.set()
        self.announcer.remove(client)
        self.links.left(client.id)
        self.publish()

    def _appeared(self, instance: Instance) -> None:
        for client in self.server.clients.values():
            client.tell(instance)

    def _spoke(self, instance: Instance, document: Document, fds: list[int]) -> None:
        """An instance says something that is not about its own life: it is about links."""
        match document.get("verb"):
            case "linked" | "refused":
                self.broker.heard(instance, document, fds)
            case "resumed" | "abandoned" if instance.run is not None:
                self.links.answered(instance.run, document, fds)
                self.lifecycle.spawner.let_go_on(instance, instance.run)
            case "memories":
                self.takeover.take_memories(instance, Request(document, fds))
            case "memory" if instance.run is not None:
                self._give_memory(instance, instance.run, Request(document, fds))
            case "unlink" | "facing":
                close_all(fds)
                if instance.run is not None:
                    self.links.told(instance.run.party(instance.name), document)
            case "connect" if instance.run is not None:
                self._connect(instance, instance.run, Request(document, fds))
            case _:
                close_all(fds)

    def _give_memory(self, instance: Instance, run: Incarnation, request: Request) -> None:
        """An instance asks for a named memory."""

        async def give() -> Answer:
            answer = await instance.named.serve(request, lambda: self.registry.room_in(instance))
            if instance.run is not run:  # it has ended meanwhile, and nobody may have it but who comes after
                close_all(answer[1])
                raise Closed(f"{instance.name!r} has ended")
            self.registry.publish(instance)
            return answer

        self.server.answers.begin(run, request, give(), run.push)

    def _connect(self, instance: Instance, run: Incarnation, request: Request) -> None:
        """An instance asks for a link to another."""
        work = self.broker.serve(run.party(instance.name), request)
        self.server.answers.begin(run, request, work, run.push)
