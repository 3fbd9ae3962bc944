"""`Kernel`: what an image is handed. The loop that serves every link, IPIs and the host, inside of an instance."""

from __future__ import annotations

import operator
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, overload

from multikernel._core import ffi, lib
from multikernel.image.cmdline import Params
from multikernel.ipi.messages import USER, Message
from multikernel.shm.wait import descriptor
from multikernel.shm.waiting import AT_ONCE, deadline, is_over
from multikernel.units import parse_size

from .links import Links
from .log import with_fields
from .memories import Memories
from .messages import Messages

if TYPE_CHECKING:
    from multikernel.image.initrd import View
    from multikernel.ipi.hostlane import HostLaneReceiver
    from multikernel.ipi.link import IpiHandler, Link
    from multikernel.kernel.panic import Panic
    from multikernel.shm.channel import Channel
    from multikernel.shm.pages import Console, MachineView, StatusPage

    from .manifest import Manifest
    from .timers import Timer
    from .usher import Usher


class Kernel:
    """An instance, seen from its image.

    One thread's at a time. Handlers of IPIs, timers and offers of links are served in the loop (`messages`, `wait`) and
    while `request` waits: never in the middle of the image's own code. While `connect` waits, only offers are.
    """

    def __init__(
        self,
        manifest: Manifest,
        control: Channel,
        host_lane: HostLaneReceiver,
        status: StatusPage,
        console: Console,
        machine: MachineView | None,
        usher: Usher | None,
        initrd: View | None = None,
        panic: Panic | None = None,
    ) -> None:
        self.id: int = manifest.id
        """1 to 511."""
        self.name: str = manifest.name
        self.epoch: int = manifest.epoch
        """Which incarnation this is, from 1 up."""
        self.machine: str = manifest.machine
        """The machine's name."""
        self.cpus: tuple[int, ...] = manifest.cpus
        self.budget: int = manifest.memory
        """Its memory, bytes: what it was created with."""
        self.cmdline: str = manifest.cmdline
        """What `load` was given for it."""
        self.params: Params = Params(manifest.cmdline)
        """The same as parameters, by name: `multikernel.image.cmdline`."""
        self.panic: Panic | None = panic
        """In a crash image: the report of the incarnation in whose place it runs."""
        self.initrd: View | None = initrd
        """The data that `load` was given, read-only: the bytes of a file; or of each file in a directory, by path
        ("conf/table.txt"). None: there is none."""
        self._console = console
        self._status = status
        self._links = Links(manifest, control, host_lane, status, machine, self.log, usher)
        self._loop, self._host = self._links.loop, self._links.host
        self._memories = Memories(self._host)
        host_lane.count_waits_in(status.own())

    # --- messages

    def messages(self, *, copy: bool = True, timeout: float | None = None) -> Messages:
        """Every link's messages, in turn, until the host asks for a halt: `for`, or `async for` in an `async def main`.

        A message counts as dealt with when the next one is asked for (by this loop, or by a `recv` or `request` on the
        same link): should this incarnation die before, it is still there for the next.

        Args:
            copy: False: payloads are read-only views of the ring, valid until the next message is asked for; until then
                their link receives nothing else (NotOwner), but sends.
            timeout: seconds without any message after which the iteration ends; None: never.

        Raises:
            BufferError: with copy=False, something made from a payload is alive when the next message is asked for.
            RuntimeError: `for` in an asynchronous main, or `async for` in another.
        """
        return Messages(self._links, copy=copy, timeout=timeout)

    def reply(self, message: Message, payload: Any, *, type: int = USER, subtype: int = 0) -> None:  # noqa: A002
        """Answer a message: the same as `message.reply`."""
        message.reply(payload, type=type, subtype=subtype)

    def serve(self, *objects: object, other: Callable[[Message], object] | None = None) -> None:
        """Serve objects' marked methods (`multikernel.method`) to whoever has a link, until a halt is asked for.

        Args:
            objects: of classes that mark methods; `Link.proxy` at the other end calls them.
            other: called with each message that is no call. Default: it is dropped, and that is said on the console.

        Raises:
            TypeError, ValueError, Unsupported: as `multikernel.Service`; and a method is `async`: `aserve` serves it.
        """
        from multikernel.ipi.service import Service

        service = Service(*objects)
        service.check_plain()
        for message in self.messages():
            if not service.handle(message):
                self._other(message, other)

    async def aserve(self, *objects: object, other: Callable[[Message], object] | None = None) -> None:
        """As `serve`, in an `async def main`: each call is a task, so that one that waits holds up nobody.

        A call is cancelled at its deadline, or when its caller asks; all are, at the end of this one.
        """
        from multikernel.ipi.service import Service

        service = Service(*objects)
        try:
            async for message in self.messages():
                if not service.start(message):
                    self._other(message, other)
        finally:
            await service.finish()

    def _other(self, message: Message, other: Callable[[Message], object] | None) -> None:
        if other is not None:
            other(message)
        else:
            self.log("dropped a message that is no call", level=4, sender=message.sender, type=f"{message.type:#x}")

    # --- interrupts

    def on_ipi(self, vector: int) -> Callable[[IpiHandler], IpiHandler]:
        """Decorate a handler for IPIs of `vector` by any link: called as `handler(vector, count)`.

        IPIs coalesce: `count` says how often the vector was raised since the last call. Handlers run in the loop,
        between messages, lowest vector first.

        Raises:
            ValueError: the vector is not 0 to 63.
            TypeError: it is no int, or the handler cannot be called.
        """

        def register(handler: IpiHandler) -> IpiHandler:
            self._links.on_ipi(vector, handler)
            return handler

        return register

    # --- timers and descriptors

    @overload
    def every(self, seconds: float) -> Callable[[Callable[[int], object]], Timer]: ...

    @overload
    def every(self, seconds: float, call: Callable[[int], object]) -> Timer: ...

    def every(
        self, seconds: float, call: Callable[[int], object] | None = None
    ) -> Timer | Callable[[Callable[[int], object]], Timer]:
        """Call `call(count)` in the loop every so many seconds, the first time after as many.

        Ticks coalesce: where the image did not come back to the loop for longer, one call is made up for all that were
        missed, and `count` says how many have come due since the last. The times are those of a grid that begins now,
        so nothing drifts. Without `call` it is a decorator; the name is the timer's then.

        Args:
            seconds: more than 0.
            call: what to call.

        Returns:
            The timer, which can be cancelled.
        """
        if call is None:
            return lambda function: self._loop.timers.every(seconds, function)
        return self._loop.timers.every(seconds, call)

    def after(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call `call()` in the loop once, after so many seconds. Returns the timer, which can be cancelled."""
        return self._loop.timers.after(seconds, call)

    def wait(self, fd: Any, timeout: float | None = None) -> bool:
        """Wait until a descriptor can be read, serving IPIs, timers and the host meanwhile.

        Messages stay where they are; IPIs by a link that has an unread message wait with it. `multikernel.wait` waits
        for links and descriptors together.

        Args:
            fd: an int, or an object with `fileno()`.
            timeout: seconds; None: no limit; 0: look only.

        Returns:
            Whether a read would not wait now (end of file and errors count). False: the time is up, or the host has
            asked for a halt (`halting`).

        Raises:
            OSError: the descriptor is not open.
        """
        self._links.check_may_wait("asyncio's own: loop.add_reader, streams")
        number = descriptor(fd)
        until = deadline(timeout)
        fds = ffi.new("struct pollfd[2]")
        while True:
            self._loop.serve()
            quiet = [link for link in self._links if not link.serve_interrupts()]
            fds[1].fd, fds[1].events, fds[1].revents = number, lib.POLLIN, 0
            last = self._host.halting or is_over(until)
            self._loop.sleep_beside(quiet, fds, AT_ONCE if last else until)
            if fds[1].revents or last:
                return bool(fds[1].revents)

    # --- links

    def connect(self, name: str, *, capacity: int | str = "1M", timeout: float = 30.0) -> Link:
        """A link to another instance of this machine. Its messages also come out of `messages`.

        A new incarnation goes on with the links of the one before: who asks for what that one had asked for, with the
        same capacity, gets the same link.

        Args:
            name: of an active instance.
            capacity: bytes each way, rounded up to a power of two.
            timeout: seconds for the other one to answer; it answers in its loop.

        Raises:
            NotFound, StateError: there is none, or it is not active.
            TimeoutError: it did not answer.
        """
        return self._links.connect(name, capacity, timeout)

    async def aconnect(self, name: str, *, capacity: int | str = "1M", timeout: float = 30.0) -> Link:  # noqa: ASYNC109 the host's as well
        """As `connect`, in an `async def main`: everything else goes on meanwhile."""
        return await self._links.aconnect(name, capacity, timeout)

    @property
    def links(self) -> tuple[Link, ...]:
        """All open links: those of the incarnation before first, then in the order in which they were made."""
        return tuple(self._links)

    # --- memory

    def memory(self, name: str, size: int | str) -> memoryview:
        """Memory of this instance that outlives the incarnation: a successor that asks for it has it as it was left.

        All zero when it is made, and counted in the instance's budget; it goes when no successor is due. Nothing in it
        is atomic but what the processor writes at once: an incarnation may have been killed between two stores.
        Waits for the host, which makes it. `numpy.frombuffer(kernel.memory("table", "16M"), dtype)` needs no copy.

        Args:
            name: 1 to 64 characters.
            size: bytes, rounded up to whole pages; always the same for the same name.

        Returns:
            Its bytes, writable, until this process ends. Asking again gives the same. A forked child does not have it.

        Raises:
            ResourceError: no room for it in the budget, or it is there with another size.
            ValueError: no memory has that size.
            OSError, MultikernelError: the system has no memory for it.
        """
        return self._memories.get(name, parse_size(size))

    # --- the host

    def ready(self) -> None:
        """Say that this instance can serve now, as `boot(until="ready")` waits for. Else the first wait says it."""
        self._host.ready()

    @property
    def halting(self) -> bool:
        """Whether the host has asked for a halt: `messages` ends then, and `main` should return."""
        self._host.serve()
        return self._host.halting

    def log(self, text: str, level: int = 6, **fields: Any) -> None:
        """Write a line to the console. Never waits. `logging` does it too, from whatever thread.

        Args:
            text: what happened.
            level: syslog's: 2 critical, 3 error, 4 warning, 6 info, 7 debug.
            fields: written after it as `key=value`; a value that is no plain word is quoted, as JSON quotes.

        Raises:
            ValueError: there is no such level.
            TypeError: the text is none, or the level no number.
        """
        if not isinstance(text, str):
            raise TypeError(f"what is logged is text, not {type(text).__name__}")
        if not 0 <= operator.index(level) <= 7:
            raise ValueError(f"level {level!r}: syslog has 0 (emergency) to 7 (debug)")
        self._console.write(f"{with_fields(text.removesuffix(chr(10)), fields)}\n", level)

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Be the loop of an asynchronous `main`: for who boots an image. Returns what that returns."""
        from . import aio

        async def serve() -> Any:
            self._links.asyncio = aio.AsyncLoop(self._links, self._loop.serve)
            return await self._links.asyncio.run(main)

        return aio.run(self._status, serve())

    def take_over(self) -> None:
        """Go on with the links of the incarnation before. Called before the image is entered, if there was one."""
        self._links.take_over()

    def close(self) -> None:
        """Use no link any more. Called when `main` has returned; the end of the process is what closes them."""
        self._host.serve()  # so that the last words go to the host that there is
        self._links.leave()
