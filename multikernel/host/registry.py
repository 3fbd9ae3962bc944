"""The instances of a machine: which there are, what each holds of the pool and which image, and their records."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from multikernel.errors import ImageError, NotFound, ResourceError
from multikernel.host import log, report
from multikernel.host.images import ImageTable
from multikernel.host.instance import Instance, Loaded
from multikernel.host.states import State, check_step
from multikernel.image.cmdline import Params
from multikernel.kernel import protocol
from multikernel.kernel.panic import Panic
from multikernel.resources.names import check_name
from multikernel.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from multikernel.host.deposit import Deposit
    from multikernel.host.events import Announcer
    from multikernel.host.loading import Received
    from multikernel.host.policy import Policy
    from multikernel.image.image import Image
    from multikernel.image.initrd import Initrd
    from multikernel.resources.pool import Pool
    from multikernel.shm.pages import MachinePage

HIGHEST_ID = 511
FIXED_MEMORY = 128 * 1024
"""What an incarnation always has, bytes: its console (64 KiB), status page and host lane, with room to spare."""
LONGEST_CMDLINE = 4096


class Registry:
    """All instances of one machine, by name.

    Args:
        machine: its name.
        pool: what it may give to instances.
        page: where their records are published.
        changed: called after an instance was created, deleted, or changed its state.
        appeared: called when an instance's pages are others than before, or gone.
        deposit: where they are kept for the next host; None: there is none.
        announcer: told of what happens to instances.
    """

    def __init__(
        self,
        machine: str,
        pool: Pool,
        page: MachinePage,
        *,
        changed: Callable[[], None],
        appeared: Callable[[Instance], None],
        announcer: Announcer,
        deposit: Deposit | None = None,
    ) -> None:
        self.machine = machine
        self.page = page
        self.instances: dict[str, Instance] = {}
        self._pool = pool
        self._images = ImageTable(page)
        self._changed, self._appeared = changed, appeared
        self.announcer = announcer
        self._deposit = deposit

    def find(self, name: str, instance_id: int | None = None) -> Instance:
        """The instance called `name`; with an id, that very one.

        Raises:
            NotFound: there is none, or by now another, of that name.
        """
        instance = self.instances.get(name)
        if instance is None or instance_id not in (None, instance.id):
            names = tuple(self.instances)
            there = f"There is {', '.join(map(repr, names))}." if names else "There is none yet: create one."
            raise NotFound(f"no instance {name!r} on machine {self.machine!r}. {there}", name=name, names=names)
        return instance

    def create(
        self,
        name: str,
        cpus: tuple[int, ...] | None,
        memory: int,
        policy: Policy,
        *,
        exclusive: bool,
        instance_id: int | None,
    ) -> Instance:
        """Reserve cpus (None: the first that can be had) and memory (bytes) for a new instance.

        Raises:
            ResourceError: name, id, cpus or memory are not to be had. Nothing was reserved.
        """
        check_name(name)
        if name in self.instances:
            raise ResourceError(
                f"the name {name!r} is taken on machine {self.machine!r}. Delete that instance, or take another name.",
                name=name,
            )
        instance_id = self._free_id(instance_id)
        if memory < FIXED_MEMORY:
            raise ResourceError(
                f"{format_size(memory)} for {name!r} is too little: its console and pages alone take "
                f"{format_size(FIXED_MEMORY)}.",
                asked=memory,
                least=FIXED_MEMORY,
            )
        if cpus is None:
            cpus = self._pool.choose(1, exclusive=exclusive)
        self._pool.reserve(name, cpus, memory, exclusive=exclusive)
        instance = Instance(instance_id, name, cpus, memory, exclusive, policy)
        instance.named.keep_with(self._deposit, instance.id)
        self.instances[name] = instance
        self.publish(instance)
        self._changed()
        self.announcer.tell("created", instance)
        return instance

    def restore(self, instance: Instance) -> None:
        """Take over an instance of the last host, with what it has loaded.

        Raises:
            ResourceError: the pool, or the table of images, has no room for it.
        """
        self._pool.reserve(instance.name, instance.cpus, instance.memory, exclusive=instance.exclusive)
        self.instances[instance.name] = instance
        instance.named.keep_with(self._deposit, instance.id)
        for loaded in (instance.loaded, instance.crash_image):
            if loaded is not None:
                loaded.image_id, loaded.image = self._images.take(loaded.image, loaded.signature)

    def lose_image(self, instance: Instance) -> None:
        """Its image went with the last host, and whoever had it besides: it has none now, and nothing to restart."""
        instance.due, instance.restart_at_ns = False, 0
        self._drop_image(instance)
        self.enter(instance, "ready")

    def check_load(self, instance: Instance, received: Received, cmdline: str, *, panic: bool) -> None:
        """Refuse what `load`, or with `panic` `load_crash_image`, would. Raises as they do."""
        check_step(instance.name, instance.state, "load --panic" if panic else "load")
        check_cmdline(received.image, cmdline)
        beside = instance.loaded if panic else instance.crash_image
        check_fits(
            instance.name, instance.memory, received.image, received.initrd, pool=self._pool.memory, beside=beside
        )

    def check_new(self, name: str, memory: int, received: Received, cmdline: str) -> None:
        """Refuse what `load` would, of an instance `name` that were made with `memory` bytes. Raises as it does."""
        check_cmdline(received.image, cmdline)
        check_fits(name, memory, received.image, received.initrd, pool=self._pool.memory)

    def load(self, instance: Instance, received: Received, cmdline: str, directory: str) -> None:
        """Give the instance an image and an initrd, owned from here on, in place of what it has.

        Raises:
            StateError, ImageError: illegal now, or too large. What it has stays, and the new ones are the caller's.
        """
        self.check_load(instance, received, cmdline, panic=False)
        image, signature, initrd = received
        image_id, image = self._images.take(image, signature)
        self._drop_image(instance)
        instance.loaded = Loaded(image, image_id, signature, cmdline, directory, initrd)
        self.enter(instance, "loaded")

    def load_crash_image(self, instance: Instance, received: Received, cmdline: str, directory: str) -> None:
        """As `load`, for the image that boots when the instance dies by itself. The state stays what it is."""
        self.check_load(instance, received, cmdline, panic=True)
        image, signature, initrd = received
        image_id, image = self._images.take(image, signature)
        self._release(instance.crash_image)
        instance.crash_image = Loaded(image, image_id, signature, cmdline, directory, initrd)
        self.publish(instance)

    def unload(self, instance: Instance) -> None:
        """Take its image away. StateError if that is illegal now."""
        check_step(instance.name, instance.state, "unload")
        self._drop_image(instance)
        self.enter(instance, "ready")

    def delete(self, instance: Instance) -> None:
        """Give back everything that it has, its name and id too. StateError if that is illegal now."""
        check_step(instance.name, instance.state, "delete")
        self._drop_image(instance)
        self._release(instance.crash_image)
        instance.crash_image = None
        self._pool.release(instance.name)
        del self.instances[instance.name]
        instance.deleted = True
        if self._deposit is not None:
            self._deposit.forget(instance)
        self.page.clear_instance(instance.id)
        if instance.last is not None:
            instance.last.close_pages()
            instance.last = None
        instance.drop_report()
        self._appeared(instance)
        self._changed()
        self.announcer.tell("deleted", instance)

    def enter(self, instance: Instance, state: State, *, ended: bool = False) -> None:
        """Change the state, and say so; `ended`: because an incarnation has."""
        news = ended or state != instance.state
        instance.state = state
        instance.state_time_ns = time.monotonic_ns()
        self.publish(instance)
        if news:
            self.announcer.tell("state", instance, ended=ended)

    def publish(self, instance: Instance) -> None:
        """Write the record that everybody reads; before that the one for the next host."""
        if self._deposit is not None:
            self._deposit.keep(instance)
        self.page.write_instance(instance.record())

    def keep(self, instance: Instance) -> None:
        """Let another host know what is asked of it: an end that was asked for is not one by itself."""
        if self._deposit is not None:
            self._deposit.keep(instance)

    def show(self, instance: Instance) -> None:
        """Its running incarnation's pages have come: they are the ones to look at from now on."""
        if instance.last is not None and instance.last is not instance.run:
            instance.last.close_pages()
        instance.last = instance.run
        if self._deposit is not None:
            self._deposit.keep(instance)
        self._appeared(instance)

    def keep_report(self, instance: Instance, epoch: int, fd: int) -> None:
        """Keep the panic report of an incarnation, owned from here on, and show it to everybody."""
        instance.keep_report(epoch, fd)
        if self._deposit is not None:
            self._deposit.keep(instance)
        self._appeared(instance)

    def room_in(self, instance: Instance) -> int:
        """Bytes of its budget that nothing is known to take: image, what went with it, console, named memory."""
        loaded = instance.loaded.size if instance.loaded else 0
        return instance.memory - FIXED_MEMORY - loaded - instance.named.size

    def name_in_report(self, instance_id: int, sender: int, header: object) -> None:
        """A message was set aside, of which incarnations have died: name it in the report that is kept of the last."""
        instance = next((each for each in self.instances.values() if each.id == instance_id), None)
        if instance is None or instance.panic is None:
            return
        try:
            amended = report.with_set_aside(Panic.read(instance.panic[1]), sender, header)
            self.keep_report(instance, instance.panic[0], report.seal(amended))
        except (OSError, ValueError) as error:
            log.write(f"the panic report of {instance.name} does not name what was set aside: {error}")

    def close(self) -> None:
        """Close what the instances hold. The records stay as they are."""
        for instance in self.instances.values():
            for loaded in (instance.loaded, instance.crash_image):
                if loaded is not None:
                    loaded.close()
            if instance.last is not None:
                instance.last.close_pages()
            instance.drop_report()
            instance.named.close()
        self._images.close()

    def extras(self) -> dict[str, int]:
        """What each new instance is given besides, by name: in a persistent machine the directory `instances`."""
        return {} if self._deposit is None else {protocol.INSTANCES: self._deposit.instances}

    def given_cpus(self) -> tuple[int, ...]:
        """The cpus that instances hold."""
        free = self._pool.free_cpus()
        return tuple(cpu for cpu in self._pool.cpus if cpu not in free)

    def memory_used(self) -> int:
        """Bytes that instances hold."""
        return self._pool.memory - self._pool.free_memory()

    def _drop_image(self, instance: Instance) -> None:
        self._release(instance.loaded)
        instance.loaded = None

    def _release(self, loaded: Loaded | None) -> None:
        if loaded is not None:
            loaded.close()
            self._images.release(loaded.image_id)

    def _free_id(self, wanted: int | None) -> int:
        taken = {instance.id: instance.name for instance in self.instances.values()}
        if wanted is None:
            wanted = next((number for number in range(1, HIGHEST_ID + 1) if number not in taken), None)
            if wanted is None:
                raise ResourceError(f"all {HIGHEST_ID} ids are taken. Delete an instance.", limit=HIGHEST_ID)
        if not 1 <= wanted <= HIGHEST_ID:
            raise ResourceError(
                f"an instance has an id from 1 to {HIGHEST_ID}, not {wanted}; 0 is the host.", asked=wanted
            )
        if wanted in taken:
            raise ResourceError(f"id {wanted} is taken by {taken[wanted]!r}. Take another, or none.", asked=wanted)
        return wanted


def check_cmdline(image: Image, cmdline: str) -> None:
    """Refuse a command line that is too long (ResourceError), or has a quote that is never closed (ImageError)."""
    if len(cmdline) > LONGEST_CMDLINE:
        raise ResourceError(
            f"a command line of {len(cmdline)} characters; at most {LONGEST_CMDLINE} fit. Hand over more as an initrd.",
            limit=LONGEST_CMDLINE,
        )
    try:
        Params(cmdline)
    except ValueError as error:
        raise ImageError(f"cannot load {image.name!r}: {error}") from None


def check_fits(
    name: str, memory: int, image: Image, initrd: Initrd | None, *, pool: int, beside: Loaded | None = None
) -> None:
    """Refuse an image that an instance with `memory` bytes has no room for.

    Args:
        name: of the instance, for messages.
        memory: its own, bytes.
        image: what it would get.
        initrd: likewise.
        pool: bytes of the whole machine.
        beside: what it has, and keeps.

    Raises:
        ImageError: it does not fit.
    """
    size = image.size + (initrd.size if initrd else 0) + (beside.size if beside else 0)
    if size + FIXED_MEMORY > memory:
        what = f"image {image.name!r} ({format_size(image.size)})"
        if initrd:
            what += f" with its initrd ({format_size(initrd.size)})"
        if beside:
            what += f" beside {beside.image.name!r} ({format_size(beside.size)}), which is loaded too,"
        more = (
            "Create it with more memory."
            if size + FIXED_MEMORY <= pool
            else f"The pool has no more than {format_size(pool)}: make a machine with more memory."
        )
        raise ImageError(
            f"{what} does not fit into {name!r}: {name!r} has {format_size(memory)}, of which its console and pages "
            f"take {format_size(FIXED_MEMORY)}. {more}",
            asked=size,
            memory=memory,
        )
