"""What a program holds of a machine: `Machine`, its `Instance`s, and `machines()`.

    with mk.Machine(cpus="0-1", memory="256M") as machine:
        web = machine.create("web", cpus=[1], memory="64M")
        web.load("server.py:main", cmdline="port=8080")
        web.boot()
        with machine.connect("web") as link:
            link.request(b"hello")

The machine is run by a process of its own, the host kernel; a method here is a request to it, and an error is what it
answered. What is only looked at (states, pids, lists, `view`) comes from shared pages, and works while the host is
stopped.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

from multikernel.client.instance import Instance
from multikernel.client.membership import Membership
from multikernel.errors import Closed, NotFound
from multikernel.host import preload as preloading
from multikernel.host import rundir
from multikernel.host.policy import Policy, Restart
from multikernel.kernel import process
from multikernel.resources import memory as system_memory
from multikernel.resources import topology
from multikernel.resources.names import check_name
from multikernel.units import parse_cpus, parse_seconds, parse_size

if TYPE_CHECKING:
    from types import TracebackType

    from multikernel.client.events import Events
    from multikernel.client.sight import Watched
    from multikernel.ipi.link import Link
    from multikernel.proc.tree import Proc
    from multikernel.shm.pages import MachineView

__all__ = ["Instance", "Machine", "machines"]

Cpus = int | str | Iterable[int]

CLOSE_WITHIN = 1.0
"""Seconds that instances get to halt when a machine is closed in good order; then they are killed."""

_numbers = itertools.count(1)


def machines() -> list[str]:
    """The names of this user's running machines, sorted."""
    return rundir.running()


class Machine:
    """A machine: a pool of cpus and memory, a host kernel, and instances. `with` closes it.

    It is *ephemeral*: it ends when it is closed, or when this program ends, however that ends. A *persistent* one
    (`persist=True`) goes on until `shutdown`, or until its host ends. Any number of programs can join a machine
    (`Machine.attach`); what they close is only their part in it.

    Threads may share it. A forked child may not use its parent's (`NotOwner`): it attaches for itself.

    Args:
        cpus: the pool's, as an int, a list or "0-3,5". Default: all that this process may use.
        memory: the pool's budget, bytes or "256M". Default: what the system has available.
        name: how others find it, unique among this user's running machines. Default: "default" if it is persistent,
            else one made of this process's id.
        persist: whether it goes on without this program.
        verify: a folder of Ed25519 public keys (*.pub or *.pem): it loads no image that is not signed by one of them.
            They are read now, once. Default: any image is loaded.
        preload: modules that every instance has imported already when it boots, as a list or "numpy,json". They are
            imported once, without threads of their own (numpy's libraries get one each, whatever an instance's cpus).

    Raises:
        ResourceError: the name is taken or against the rule, or cpus are not there or not this process's.
        ValueError, TypeError: cpus, memory, keys or names of modules that are none.
        Unsupported: `verify`, and the library for it is missing.
        MultikernelError: the host did not start, and what it said; or an image makes it while it is imported.
    """

    def __init__(
        self,
        cpus: Cpus | None = None,
        memory: int | str | None = None,
        name: str | None = None,
        *,
        persist: bool = False,
        verify: str | os.PathLike[str] | None = None,
        preload: str | Iterable[str] = (),
    ) -> None:
        process.check_imports_nothing()
        chosen = topology.allowed() if cpus is None else topology.check_usable(parse_cpus(cpus))
        budget = system_memory.available() if memory is None else parse_size(memory)
        if name is None:
            name = "default" if persist else f"machine-{os.getpid()}-{next(_numbers)}"
        check_name(name)
        trusted: list[bytes] = []
        if verify is not None:
            from multikernel.image import keys

            trusted = keys.read_folder(verify)
        modules = preloading.names(preload)
        self._membership = Membership.start(
            self, name, chosen, budget, persistent=persist, trusted=trusted, preload=modules
        )

    @classmethod
    def attach(cls, name: str | None = None) -> Self:
        """Join a running machine.

        Args:
            name: its name. Default: the only one that is running, else the one called "default".

        Raises:
            NotFound: there is none, or several of which none is called "default"; the message lists them.
            Timeout: its host does not answer.
        """
        machine = cls.__new__(cls)
        machine._membership = Membership.join(machine, _the_one_meant() if name is None else check_name(name))
        return machine

    @property
    def name(self) -> str:
        """Its name."""
        return self._membership.name

    @property
    def pid(self) -> int:
        """Of its host kernel."""
        return self.view.machine().host_pid

    @property
    def view(self) -> MachineView:
        """What the host says of the machine, its images and its instances, read from shared pages."""
        return self._membership.view()

    def watched(self, instance_id: int) -> Watched | None:
        """The pages of an instance's newest incarnation, by `Instance.id`: epoch, status, console; None: none yet."""
        return self._membership.watched(instance_id)

    @property
    def proc(self) -> Proc:
        """The machine's view: texts by path ("instances/web/status"), made of shared pages when they are read."""
        from multikernel.proc.tree import Proc

        return Proc(self.view, self.watched, self._membership.panic)

    def create(
        self,
        name: str,
        cpus: Cpus | None = None,
        memory: int | str = "64M",
        *,
        exclusive: bool = True,
        restart: str | Restart = "never",
        watchdog: float | None = None,
        on_hang: str = "report",
        core: bool = False,
        id: int | None = None,  # noqa: A002 - it is what it is called everywhere
    ) -> Instance:
        """Reserve cpus and memory for a new instance; its state is `ready`.

        Args:
            name: unique in the machine; 1 to 64 characters, no "/".
            cpus: of the pool. Default: the first that is free.
            memory: budget for what it adds to the machine, bytes or "64M": image, console, links.
            exclusive: False: its cpus may be shared with others that were created so, too.
            restart: "never", "on-failure" (it died by itself) or "always" (also when `main` returned): it is then
                booted again, after a wait that grows. `Restart` says how long, and how often. What somebody halts or
                kills is not restarted.
            watchdog: seconds without a sign of life after which it is hung: messages that it does not read, or no
                answer to the host's look. One that sleeps until something comes is alive. None: nobody looks.
            on_hang: "report": it is said (`hung` in the status), and nothing else is done; "dump": it is killed, with
                the traceback of all threads in its panic report, and has failed; "reboot": then it is booted again.
            core: leave it dumpable, so that the system can write a core file, and debuggers of this user can attach;
                but then other processes of this user get at its memory and descriptors, too.
            id: 1 to 511. Default: the lowest that is free.

        Raises:
            ValueError: a policy that cannot be meant.
            ResourceError: the name or id is taken or against the rule, cpus or memory are not to be had; the message
                says what is free. Nothing was reserved.
        """
        asked = None if cpus is None else list(parse_cpus(cpus))
        policy = Policy.of(restart, watchdog, on_hang, core=core)
        fields = {
            "name": name,
            "cpus": asked,
            "memory": parse_size(memory),
            "policy": policy.to_json(),
            "exclusive": exclusive,
            "instance": id,
        }
        check_name(name)
        made = self._membership.request("create", fields)
        return Instance(self, self._membership, name, made["instance"])

    def check(
        self,
        name: str,
        spec: str | Callable[..., Any],
        cmdline: str = "",
        *,
        memory: int | str = "64M",
        initrd: str | os.PathLike[str] | None = None,
    ) -> None:
        """See whether an instance that is not made yet could load an image. Nothing is made, loaded or run.

        Args:
            name: of that instance, for messages.
            spec: the image, as for `Instance.load`.
            cmdline: likewise.
            memory: that it would have.
            initrd: as for `Instance.load`.

        Raises:
            ImageError, ResourceError, ValueError: as `Instance.load` would; the host is asked, so keys and signature
                count.
        """
        from multikernel.client.offer import offered

        size = parse_size(memory)
        with offered(spec, cmdline, initrd, size) as (fields, fds):
            self._membership.request("check", fields | {"name": check_name(name), "memory": size}, fds=fds)

    def delete(self, name: str) -> None:
        """Delete an instance: the same as `machine[name].delete()`."""
        self[name].delete()

    def connect(self, name: str, capacity: int | str = "1M", timeout: float = 30.0) -> Link:
        """A link of one's own to an instance, which gets it in its loop.

        Args:
            name: of an active instance.
            capacity: bytes each way, or "1M"; rounded up to a power of two of at least a page.
            timeout: seconds for the instance to take it, which it does when it looks for messages.

        Raises:
            NotFound, StateError: there is no such instance, or it is not active.
            ResourceError: it has no memory for so large a link.
            Timeout: it is busy. Nothing is left of the link.
            Closed: it ended meanwhile.
        """
        return self._membership.connect(name, _rounded(parse_size(capacity)), parse_seconds(timeout))

    def events(self) -> Events:
        """What happens to the instances from now on: an iterator of `Event`, for `for`, `async for`, and `fileno`.

        It has a connection of its own, goes on if this `Machine` is closed, and ends with the host; `close` it.
        """
        from multikernel.client.events import Events

        return Events(self._membership.name)

    def __getitem__(self, name: str) -> Instance:
        """The instance called `name`; NotFound (a KeyError) if there is none."""
        for record in self.view.instances():
            if record.name == name:
                return Instance(self, self._membership, name, record.id)
        names = tuple(self)
        there = f"There is {', '.join(map(repr, names))}." if names else "There is none yet: create one."
        raise NotFound(f"no instance {name!r} on machine {self.name!r}. {there}", name=name, names=names)

    def __iter__(self) -> Iterator[str]:
        """The instances' names, by id."""
        return iter([record.name for record in self.view.instances()])

    def __len__(self) -> int:
        """How many instances there are."""
        return len(self.view.instances())

    def __contains__(self, name: object) -> bool:
        """Whether there is an instance called `name`."""
        return name in list(self)

    def shutdown(self, timeout: float = 5.0) -> None:
        """End the machine for everybody, and return when nothing is left of it. This `Machine` is closed then.

        Args:
            timeout: seconds for all instances to halt; those that have not are killed. 0: at once.
        """
        self._membership.shut_down(parse_seconds(timeout))

    def close(self) -> None:
        """End an ephemeral machine of one's own; leave any other. Closing twice is fine."""
        self._membership.end(CLOSE_WITHIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error, a Ctrl-C among them, nobody wants to wait for instances to finish their work.
        self._membership.end(CLOSE_WITHIN if kind is None else 0.0)

    def __repr__(self) -> str:
        try:
            return f"<Machine {self.name!r}, host pid {self.pid}, {len(self)} instances>"
        except (Closed, RuntimeError):
            return f"<Machine {self.name!r}, closed>"


def _rounded(capacity: int) -> int:
    """The power of two that a link of at least `capacity` bytes has."""
    return max(os.sysconf("SC_PAGESIZE"), 1 << max(capacity - 1, 0).bit_length())


def _the_one_meant() -> str:
    names = machines()
    if len(names) == 1:
        return names[0]
    if "default" in names:
        return "default"
    if not names:
        raise NotFound("no machine is running. Make one with Machine(), or `multikernel init`.", names=())
    raise NotFound(
        f"{len(names)} machines are running: {', '.join(map(repr, names))}. Say which one is meant.", names=tuple(names)
    )
