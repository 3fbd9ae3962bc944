"""A program's part in a machine: the connection, what it sees, and the host's process if it started that."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Self, TypeVar

from multikernel.client import launch
from multikernel.client.connection import Connection, join
from multikernel.client.sight import Sight
from multikernel.errors import Closed, MultikernelError, NotFound, NotOwner, ResourceError
from multikernel.host import address
from multikernel.host.rundir import RunDir
from multikernel.ipi.half import LinkHalf
from multikernel.ipi.peer import HOST_SPEAKS_WITHIN, NEXT_HOST_WITHIN
from multikernel.shm.channel import close_all, expect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from multikernel.client.launch import HostProcess
    from multikernel.client.sight import Watched
    from multikernel.ipi.link import Link
    from multikernel.kernel.panic import Panic
    from multikernel.shm.channel import Channel, Document
    from multikernel.shm.pages import MachineView

T = TypeVar("T")

_LOOKS_EVERY = 0.1  # seconds between two looks for a new host by who only wants to see
_JOINS_WITHIN = 10.0  # seconds for a host to answer a new client
_ENDS_WITHIN = 5.0  # seconds for a host to end, after it has said so or was hung up on; then it is killed


class Membership:
    """Belongs to one process, and ends when `owner` is collected at the latest, or with the interpreter.

    Args:
        owner: on whose behalf; it goes with a `ResourceWarning` if it was not closed before.
        name: the machine's.
        channel: the control connection, owned from here on.
        answer: to `start` or `join`.
        page: descriptor of the machine object, owned from here on.
        process: the host's, if this membership has started it.
    """

    def __init__(
        self, owner: object, name: str, channel: Channel, answer: dict[str, Any], page: int, process: HostProcess | None
    ) -> None:
        self.name = name
        self._lasting: bool = answer["persistent"]
        self._client_id: int = answer["client"]
        self._host: int = answer["pid"]
        self._pid = os.getpid()
        self._process = process
        self._joining = threading.Lock()
        self._looked = 0.0  # when a look for a new host was in vain
        self._sight = Sight(page)
        self._links: weakref.WeakValueDictionary[int, Link] = weakref.WeakValueDictionary()
        self._connection = Connection(channel, name, self._on_push)
        self._finalizer = weakref.finalize(owner, self._abandoned, repr(owner.__class__.__name__))
        _members.add(self)

    @classmethod
    def start(
        cls,
        owner: object,
        name: str,
        cpus: Sequence[int],
        memory: int,
        *,
        persistent: bool,
        trusted: Sequence[bytes] = (),
        preload: Sequence[str] = (),
    ) -> Self:
        """Start a machine, and be its creator. Raises as `Machine` does."""
        process, channel, answer, page = launch.start(
            name, cpus, memory, persistent=persistent, trusted=trusted, preload=preload
        )
        started = cls(owner, name, channel, answer, page, process)
        try:
            started._watch()  # so that the host knows that somebody has the machine
        except BaseException:
            started._leave(ended=True)
            raise
        return started

    @classmethod
    def join(cls, owner: object, name: str) -> Self:
        """Join a running machine. Raises as `Machine.attach` does."""
        joined = cls(owner, name, *_join(name, _JOINS_WITHIN))
        try:
            joined._watch()
        except BaseException:
            joined._leave(ended=False)
            raise
        return joined

    def view(self) -> MachineView:
        """The machine's page. It can be read while the host is stopped, or gone.

        Raises:
            Closed: this membership has ended here.
            NotOwner: this is a forked child.
        """
        self._check()
        self._look_for_host()
        return self._sight.machine

    def watched(self, instance_id: int) -> Watched | None:
        """The pages of an instance's newest incarnation; None: the host has sent none. Raises as `view` does."""
        self._check()
        self._look_for_host()
        self._connection.poll()
        return self._sight.watched(instance_id)

    def forget(self, instance_id: int) -> None:
        """Let go of the pages of an instance that was deleted.

        The host says that there are none any more when it knows that what it had sent before was taken, so at the
        latest before it answers again.
        """
        if self._sight.watched(instance_id) is not None:
            with contextlib.suppress(MultikernelError):
                self.request("census", {})

    def panic(self, instance_id: int, epoch: int) -> Panic | None:
        """The panic report of incarnation `epoch` of an instance; None: it is not kept any more. Raises as `view` does.

        The host has sent it before it has published that there is one, unless this client was slow to take what came
        before: then it is asked to send all again.
        """
        self._check()
        self._connection.poll()
        panic = self._sight.panic(instance_id)
        if panic is None or panic.epoch != epoch:
            self._watch()
            panic = self._sight.panic(instance_id)
        return panic

    def request(
        self, verb: str, fields: dict[str, Any], *, fds: Sequence[int] = (), timeout: float | None = 30.0
    ) -> dict[str, Any]:
        """Ask the host for what brings no descriptors. Raises as `Connection.request` does, and NotOwner.

        The host of a persistent machine may have been killed: then the next one is asked. Closed only if it was killed
        in the middle of this request, and asking twice would be another thing than asking once.
        """
        return self._ask(
            lambda connection: connection.request(verb, fields, fds, timeout=timeout)[0], verb, again=verb == "wait"
        )

    def request_descriptor(self, verb: str, fields: dict[str, Any]) -> int:
        """As `request`, for what brings one descriptor, which is the caller's."""
        self._check()
        (fd,) = expect(self._connection.request(verb, fields)[1], 1, f"the answer to {verb}")
        return fd

    def connect(self, name: str, capacity: int, timeout: float) -> Link:
        """A link to instance `name`. Raises as `Machine.connect` does."""
        half, terms, fds = self._ask(
            lambda connection: self._link(connection, name, capacity, timeout), "connect", again=True
        )
        try:
            producer, consumer, socket_fd, pidfd = expect(fds, 4, "a link")
        except MultikernelError:
            half.close()
            self.tell({"verb": "unlink", "link": terms["link"]})
            raise
        link = half.attach(
            [producer, consumer],
            socket_fd=socket_fd,
            pidfd=pidfd,
            peer_id=terms["peer"],
            peer_name=terms["peer_name"],
            peer_epoch=terms["peer_epoch"],
            machine=self._sight.machine,
            number=terms["link"],
            introducer=self,
        )
        self._links[link.peer.number] = link
        return link

    # --- what links ask of who introduces them

    def take_news(self) -> None:
        """Take what the host has pushed; of a host that was killed, the next one's."""
        self._look_for_host()
        self._connection.poll()

    def patience(self) -> float:
        """Seconds that the host may take to say what has become of a peer."""
        return NEXT_HOST_WITHIN if self._lasting and self._connection.closed else HOST_SPEAKS_WITHIN

    def tell(self, document: Document) -> None:
        """Say something to the host that it does not answer; nothing, if it does not read or this has ended."""
        self._connection.tell(document)

    def changing(self, _link: Link) -> AbstractContextManager[None]:
        """A block in which one of the links gets another peer: nothing of ours waits for links."""
        return nullcontext()

    def _link(
        self, connection: Connection, name: str, capacity: int, timeout: float
    ) -> tuple[LinkHalf, dict[str, Any], list[int]]:
        half = LinkHalf.create(capacity, self._client_id, 0)
        try:
            fields = {"to": name, "capacity": capacity, "timeout": timeout}
            return half, *connection.request("connect", fields, half.descriptors(), timeout=timeout)
        except BaseException:
            half.close()
            raise

    def _ask(self, ask: Callable[[Connection], T], what: str, *, again: bool) -> T:
        """`ask` the host; if it was killed, the next one. `again`: also if it was killed in the middle."""
        while True:
            self._check()
            self._connection.poll()
            if self._connection.closed:
                self._rejoin()
            connection = self._connection
            try:
                return ask(connection)
            except Closed as error:
                if not self._lasting or not self._finalizer.alive or not connection.closed:
                    raise
                if again or not error.fields.get("sent", True):
                    continue
                raise Closed(
                    f"the host of machine {self.name!r} was killed when it was asked for {what!r}: that may be done or "
                    "not. Its instances go on, and another host takes over: look, and ask that again.",
                    name=self.name,
                ) from error

    def _rejoin(self) -> None:
        """Join the next host of a persistent machine. Raises Closed if there is none, and will be none."""
        with self._joining:
            if not self._connection.closed or not self._finalizer.alive:
                return  # another thread has done it, or has closed the machine
            gone = Closed(f"machine {self.name!r} is gone: it was shut down, or nothing of it lives", name=self.name)
            if not self._lasting:
                raise gone
            try:
                joined = _join(self.name, launch.STARTS_WITHIN)
            except NotFound:
                raise gone from None
            self._renew(*joined)

    def _renew(self, channel: Channel, answer: dict[str, Any], page: int, process: HostProcess | None) -> None:
        self._connection.close()
        if self._process is not None:
            self._process.forget()
            launch.reap_forgotten(self._process.pid, _ENDS_WITHIN)
        self._process = process
        self._sight.renew(page)
        self._client_id, self._host = answer["client"], answer["pid"]
        self._connection = Connection(channel, self.name, self._on_push)
        self._connection.request("watch", {}, timeout=_JOINS_WITHIN)
        for link in list(self._links.values()):
            link.peer.renewed()
            self.tell({"verb": "facing", "link": link.peer.number, "epoch": link.peer.epoch})

    def _look_for_host(self) -> None:
        """For who only looks: join the next host, if one listens already."""
        if not self._lasting:
            return
        self._connection.poll()
        if not self._connection.closed or time.monotonic() < self._looked + _LOOKS_EVERY:
            return
        with contextlib.suppress(MultikernelError), self._joining:
            self._looked = time.monotonic()
            if self._connection.closed:  # else another thread was quicker
                self._renew(*_introduce(self.name, address.connect(RunDir(self.name), timeout=0)), None)

    def shut_down(self, timeout: float) -> None:
        """End the machine, with `timeout` seconds for its instances to halt; return when nothing is left of it."""
        self._ask(
            lambda connection: connection.request("shutdown", {"timeout": timeout}, timeout=timeout),
            "shutdown",
            again=True,
        )
        self._connection.await_end(_ENDS_WITHIN)
        self._leave(ended=True)

    def end(self, timeout: float) -> None:
        """End the machine if it was started by this membership, else only leave it. Twice is fine.

        Does not fail: a host that does not answer is killed, and the zygote clears up after it. In a forked child it
        does nothing.
        """
        if os.getpid() != self._pid:
            return
        try:
            if self._ends_it and not self._connection.closed:
                self._connection.request("shutdown", {"timeout": timeout}, timeout=timeout, grace=_ENDS_WITHIN)
                self._connection.await_end(_ENDS_WITHIN)
        except MultikernelError:
            pass  # it is gone already, or silent
        finally:
            self._leave(ended=self._ends_it)

    def close_copy(self) -> None:
        """In a forked child: give back what it has inherited and may not use."""
        self._connection.close_copy()
        if self._process is not None:
            self._process.forget()

    def _watch(self) -> None:
        """Have the pages of instances sent. They come before the answer, so that the first look finds what there is."""
        self.request("watch", {}, timeout=_JOINS_WITHIN)

    @property
    def _ends_it(self) -> bool:
        """Whether the machine ends with this membership."""
        return self._process is not None and not self._lasting

    def _leave(self, *, ended: bool) -> None:
        self._finalizer.detach()
        self._connection.close()
        self._sight.close()
        if self._process is None:
            launch.reap_forgotten(self._host if ended else 0, _ENDS_WITHIN)
            return
        if ended:
            self._process.wait(_ENDS_WITHIN)
            RunDir(self.name).remove()  # if host and zygote were killed, nobody else has
        else:
            self._process.forget()

    def _abandoned(self, what: str) -> None:
        """The owner was collected, or the interpreter ends."""
        if os.getpid() != self._pid:
            return
        warnings.warn(f"a {what} ({self.name!r}) was not closed", ResourceWarning, stacklevel=2)
        self.end(0.0)

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise NotOwner(
                f"machine {self.name!r} was opened by process {self._pid}, and this is a fork of it: attach anew",
                pid=self._pid,
            )
        if not self._finalizer.alive:
            raise Closed(f"machine {self.name!r} was closed here")

    def _on_push(self, document: Document, fds: list[int]) -> None:
        if document.get("push") == "successor":
            link = self._links.get(document["link"])
            if link is None:
                close_all(fds)
            else:
                link.peer.offer(document, fds)
            return
        number = self._sight.take(document, fds)
        if number is not None:
            self._connection.tell({"verb": "seen", "instance": number})


def _join(name: str, within: float) -> tuple[Channel, dict[str, Any], int, HostProcess | None]:
    """Join the host of a machine, or start the next one of a machine that has lost it: what a `Membership` is made of.

    `within` is seconds for a host to listen: one that its zygote has just started takes as long as any other.

    Raises:
        NotFound: no such machine.
        Timeout: its host does not let us in, or does not answer.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            listening = address.connect(RunDir(name), timeout=max(0.0, deadline - time.monotonic()))
            return *_introduce(name, listening), None
        except Closed:  # it was killed when we came
            if time.monotonic() >= deadline:
                raise
        except address.Hostless:
            try:
                process, channel, answer, page = launch.revive(name)
            except ResourceError:  # another is quicker
                if time.monotonic() >= deadline:
                    raise
            else:
                return channel, answer, page, process


def _introduce(name: str, channel: Channel) -> tuple[Channel, dict[str, Any], int]:
    try:
        answer, fds = join(channel, name, _JOINS_WITHIN)
        (page,) = expect(fds, 1, "the answer to join")
    except BaseException:
        channel.close()
        raise
    return channel, answer, page


_members: weakref.WeakSet[Membership] = weakref.WeakSet()


def _in_forked_child() -> None:
    for member in list(_members):
        member.close_copy()


os.register_at_fork(after_in_child=_in_forked_child)
