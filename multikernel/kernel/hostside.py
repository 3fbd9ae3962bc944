"""What an instance and its host say to each other, seen from the instance: `multikernel.kernel.protocol`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from multikernel.errors import Closed, from_wire
from multikernel.shm.channel import close_all
from multikernel.shm.waiting import deadline

if TYPE_CHECKING:
    from multikernel.ipi.hostlane import HostLaneReceiver
    from multikernel.shm.channel import Channel
    from multikernel.shm.pages import StatusPage


class HostSide:
    """The control channel and the host lane.

    Args:
        control: the channel.
        lane: by which the host rings.
        status: the instance's page.
        on_push: called with each document that answers nothing, and its descriptors, which are the callee's to close.
    """

    def __init__(
        self,
        control: Channel,
        lane: HostLaneReceiver,
        status: StatusPage,
        on_push: Callable[[dict[str, Any], list[int]], None],
    ) -> None:
        self.control = control
        self.lane = lane
        self.halting = False
        """Whether it has asked for a halt."""
        self._status = status
        self._on_push = on_push
        self._ready = False
        self._request = 0
        self._asked: dict[int, Callable[[dict[str, Any], list[int]], None]] = {}  # who waits for which answer

    def ready(self) -> None:
        """Say that the instance can serve now. Once; after that it does nothing."""
        if not self._ready:
            self._ready = True
            self._status.phase("ready")
            self.control.send({"verb": "ready"})

    def serve(self) -> None:
        """Do what the host wants; a look at a page when it wants nothing."""
        if not self.lane.ready:
            return
        try:
            halt, look = self.lane.take()
        except Closed:
            sys.exit(1)  # the host is gone: this machine ends
        if halt and not self.halting:
            self.halting = True
            self._status.phase("ending")
        self._status.beat()  # it was asked to look, and has
        if look:
            self.take_documents()

    def take_documents(self) -> None:
        """Take what is on the control channel, without waiting."""
        while (received := self.control.receive(timeout=0)) is not None:
            self._take(*received)

    def ask(self, document: dict[str, Any], fds: list[int], timeout: float) -> tuple[dict[str, Any], list[int]]:
        """A request over the control channel. What the host sends meanwhile is served.

        Two that connect to each other would wait for each other otherwise.
        """
        answers: list[tuple[dict[str, Any], list[int]]] = []
        number = self.begin(document, fds, lambda answer, got: answers.append((answer, got)))
        until = deadline(timeout + 5)  # the host says it first
        try:
            while not answers:
                received = self.control.receive(timeout=max(0.001, (until - time.monotonic_ns()) / 1e9))
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
        """Send a request; its answer, with descriptors that are the callee's, goes to `on_answer` when it is taken."""
        self._request += 1
        self.control.send(document | {"id": self._request}, fds)
        self._asked[self._request] = on_answer
        return self._request

    def _take(self, document: dict[str, Any], fds: list[int]) -> None:
        number = document.get("answer")
        if number is None:
            self._on_push(document, fds)
            return
        on_answer = self._asked.pop(number, None)
        if on_answer is None:  # to a request that was given up
            close_all(fds)
        else:
            on_answer(document, fds)
