"""What an instance and its host say to each other, seen from the instance: `multikernel.kernel.protocol`."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from multikernel.errors import Closed, from_wire
from multikernel.shm.channel import close_all
from multikernel.shm.waiting import FOR_EVER, deadline

if TYPE_CHECKING:
    from multikernel.ipi.hostlane import HostLaneReceiver
    from multikernel.shm.channel import Channel
    from multikernel.shm.pages import StatusPage

    from .usher import Usher


class _Asked(NamedTuple):
    """A request that is not answered yet."""

    document: dict[str, Any]
    fds: list[int]
    on_answer: Callable[[dict[str, Any], list[int]], None]


class HostSide:
    """The control channel and the host lane.

    Args:
        control: the channel.
        lane: by which the host rings.
        status: the instance's page.
        on_push: called with each document that answers nothing, and its descriptors, which are the callee's to close.
        usher: what brings a new host; None: the end of this one is the instance's.
    """

    def __init__(
        self,
        control: Channel,
        lane: HostLaneReceiver,
        status: StatusPage,
        on_push: Callable[[dict[str, Any], list[int]], None],
        usher: Usher | None,
    ) -> None:
        self.control = control
        self.lane = lane
        self.halting = False
        """Whether it has asked for a halt."""
        self._status = status
        self._on_push = on_push
        self._usher = usher
        self.change: Callable[[Callable[[], None]], None] = lambda change: change()
        """Calls a function that puts another lane into `lane`. For who waits on that: the old end goes meanwhile."""
        self._ready = False
        self.on_new_host: Callable[[], None] | None = None
        """Called when there is another host, and it can be talked to."""
        self._request = 0
        self._asked: dict[int, _Asked] = {}  # what waits for an answer, by its number

    @property
    def has_host(self) -> bool:
        """Whether there is a host, as far as is known: not while the next one of a persistent machine is awaited.

        Nor before `serve` has met that one, whose word is not heard here until then.
        """
        return self._usher is None or (self._usher.wait(0) and self._usher.lane is None)

    def ready(self) -> None:
        """Say that the instance can serve now. Once; after that it does nothing."""
        if not self._ready:
            self._ready = True
            self._status.phase("ready")
            self.tell({"verb": "ready"})

    def tell(self, document: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Say what is not answered. A host that was killed need not hear it, where there will be another."""
        try:
            self.control.send(document, fds)
        except Closed:
            if self._usher is None:
                raise

    def keep_memory(self, name: str, fd: int) -> None:
        """Have a copy of the descriptor of a named memory for a host that does not have it, if there may be one."""
        if self._usher is not None:
            self._usher.memories[name] = os.dup(fd)

    def serve(self) -> None:
        """Do what the host wants; a look at a page when it wants nothing."""
        if self._usher is not None and self._usher.lane is not None:
            self._change_host(self._usher)
        if not self.lane.ready:
            return
        try:
            halt, look = self.lane.take()
        except Closed:
            if self._usher is None:
                sys.exit(1)  # the host is gone: this machine ends
            self._change_host(self._usher)
            return
        if halt and not self.halting:
            self.halting = True
            self._status.phase("ending")
        self._status.beat()  # it was asked to look, and has
        if look:
            try:
                self.take_documents()
            except Closed:  # the lane tells it, too, once it was read to its end
                if self._usher is None:
                    raise

    def take_documents(self) -> None:
        """Take what is on the control channel, without waiting. Closed: the host is gone."""
        while (received := self.control.receive(timeout=0)) is not None:
            self._take(*received)

    def ask(self, document: dict[str, Any], fds: list[int], timeout: float) -> tuple[dict[str, Any], list[int]]:
        """A request over the control channel. What the host sends meanwhile is served.

        Two that connect to each other would wait for each other otherwise.
        """
        answers: list[tuple[dict[str, Any], list[int]]] = []
        number = self.begin(document, fds, lambda answer, got: answers.append((answer, got)))
        until = deadline(min(timeout + 5, FOR_EVER))  # the host says it first
        try:
            while not answers:
                left = max(0.001, (until - time.monotonic_ns()) / 1e9)
                try:
                    received = self.control.receive(timeout=left)
                except Closed:  # a host that was killed: the next one is asked, which `serve` does
                    if self._usher is None or not self._usher.wait(left):
                        raise
                    self.serve()
                    continue
                if received is not None:
                    self._take(*received)
        finally:
            self._asked.pop(number, None)
        answer, got = answers[0]
        if "failed" in answer:
            close_all(got)
            raise from_wire(answer["failed"])
        return answer["ok"], got

    def begin(
        self, document: dict[str, Any], fds: list[int], on_answer: Callable[[dict[str, Any], list[int]], None]
    ) -> int:
        """Send a request; its answer, with descriptors that are the callee's, goes to `on_answer` when it is taken.

        The descriptors stay the caller's, and open until then: if the host is killed, the next one is asked the same.
        """
        self._request += 1
        asked = _Asked(document | {"id": self._request}, fds, on_answer)
        self.tell(asked.document, fds)
        self._asked[self._request] = asked
        return self._request

    def _change_host(self, usher: Usher) -> None:
        """There is a new host, or none for now: wait on the lane that the usher has for that."""

        def replace() -> None:
            lane, control = usher.take()
            with contextlib.suppress(Closed):  # its last words
                self.take_documents()
            self.lane.replace(lane)
            self.lane.count_waits_in(self._status.own())
            if control is not None:
                self.control.replace(control)
                for asked in self._asked.values():
                    self.tell(asked.document, asked.fds)
                if self.on_new_host is not None:
                    self.on_new_host()

        self.change(replace)

    def _take(self, document: dict[str, Any], fds: list[int]) -> None:
        number = document.get("answer")
        if number is None:
            self._on_push(document, fds)
            return
        asked = self._asked.pop(number, None)
        if asked is None:  # to a request that was given up
            close_all(fds)
        else:
            asked.on_answer(document, fds)
