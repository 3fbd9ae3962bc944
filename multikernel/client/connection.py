"""A program's side of a control connection: requests out, answers and pushes in, for any number of threads.

There is no thread of its own. Of the threads that wait for an answer one reads, for all of them, and hands the
others theirs; when it has its own, another takes over. What comes while nobody waits stays in the socket until
somebody asks (`poll`); it is bounded, see `multikernel.host.client.Client.tell`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import multikernel
from multikernel.errors import Closed, MultikernelError, Timeout, from_wire
from multikernel.kernel.protocol import PROTOCOL
from multikernel.shm.channel import close_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from multikernel.shm.channel import Channel, Document, Received

GRACE = 10.0
"""Seconds beyond a request's own time-out that its answer may take: the host is to be the one who says that."""


def ask_first(
    channel: Channel, document: Document, fds: Sequence[int], timeout: float
) -> tuple[dict[str, Any], list[int]]:
    """The first request on a new channel, `start` or `join`, which nothing but its answer precedes.

    Returns:
        What follows "ok", and the descriptors that came with it, which are the caller's.

    Raises:
        MultikernelError: what the host answers. Closed, Timeout: it is gone, or silent.
    """
    channel.send({**document, "protocol": PROTOCOL}, fds)
    answer, got = channel.receive(timeout=timeout) or ({}, [])
    if "ok" not in answer:
        close_all(got)
        raise from_wire(answer.get("failed", {}))
    if answer["ok"].get("protocol") != PROTOCOL:
        close_all(got)
        raise MultikernelError(
            f"the host of this machine speaks version {answer['ok'].get('protocol')} of the protocol, and this "
            f"multikernel ({multikernel.__version__}) speaks version {PROTOCOL}. Use the multikernel that started the "
            "machine, or shut it down with that and start it anew with yours.",
            host=answer["ok"].get("protocol"),
            client=PROTOCOL,
        )
    return answer["ok"], got


def join(channel: Channel, machine: str, timeout: float) -> tuple[dict[str, Any], list[int]]:
    """Be let in by the host of a machine that runs. Returns and raises as `ask_first`."""
    try:
        return ask_first(channel, {"verb": "join", "id": 0}, [], timeout)
    except Timeout:
        raise _silent(machine) from None


def _silent(machine: str) -> Timeout:
    return Timeout(
        f"the host of machine {machine!r} does not answer: it is stopped, or hangs. Its instances go on.", name=machine
    )


class Connection:
    """A control connection to a host.

    Args:
        channel: owned from here on.
        machine: its name, for messages.
        on_push: called with each push, and its descriptors, which are the callee's to close.
    """

    def __init__(self, channel: Channel, machine: str, on_push: Callable[[Document, list[int]], None]) -> None:
        self._channel = channel
        self._machine = machine
        self._on_push = on_push
        self._numbers = itertools.count(1)
        self._answers: dict[int, Received | None] = {}  # of requests that are under way; None: not there yet
        self._changed = threading.Condition()
        self._reader: int | None = None  # the thread that reads for all
        self._sending = threading.Lock()
        self._gone = False

    @property
    def closed(self) -> bool:
        """Whether it was closed here, or the host is known to be gone."""
        return self._gone

    def request(
        self,
        verb: str,
        fields: dict[str, Any],
        fds: Sequence[int] = (),
        *,
        timeout: float | None = 30.0,
        grace: float = GRACE,
    ) -> tuple[dict[str, Any], list[int]]:
        """Ask, and wait for the answer.

        Args:
            verb: what to do; see `multikernel.host.verbs`, also for the next two.
            fields: of the request.
            fds: descriptors that go with it; they stay the caller's.
            timeout: seconds that the host may take by what was asked; None: no limit.
            grace: seconds beyond it after which a host counts as silent.

        Returns:
            What follows "ok", and the descriptors that came with it, which are the caller's.

        Raises:
            MultikernelError: what the host answers, as the class that it raised.
            Closed: the machine is gone; the field `sent` is False if the host cannot have got the request.
            Timeout: the host is silent for longer than it may; it is stopped, or hangs.
        """
        number = next(self._numbers)
        deadline = None if timeout is None else time.monotonic() + timeout + grace
        self._answers[number] = None
        try:
            self._send({"verb": verb, "id": number, **fields}, fds, deadline)
            answer, got = self._await(number, deadline)
            del self._answers[number]
        finally:
            untaken = self._answers.pop(number, None)  # after a Ctrl-C: nobody waits any more
            if untaken is not None:
                close_all(untaken[1])
        if "failed" in answer:
            close_all(got)
            raise from_wire(answer["failed"])
        return answer["ok"], got

    def poll(self) -> None:
        """Take the pushes that are there, without waiting. Does nothing when the host is gone."""
        me = threading.get_ident()
        try:
            with self._changed:
                if self._reader is not None or self._gone:
                    return  # whoever reads takes them
                self._reader = me
            while (received := self._channel.receive(timeout=0)) is not None:
                self._dispatch(*received)
        except Closed:
            self._gone = True
        finally:
            self._stop_reading(me)

    def tell(self, document: Document) -> None:
        """Send what is not answered; nothing, if the host does not read."""
        with contextlib.suppress(Closed), self._sending:
            self._channel.send(document, wait=False)

    def await_end(self, timeout: float) -> None:
        """Wait until the host hangs up, for `timeout` seconds at most."""
        deadline = time.monotonic() + timeout
        with contextlib.suppress(Closed, Timeout):
            while True:
                document, fds = self._channel.receive(timeout=max(0.001, deadline - time.monotonic())) or ({}, [])
                close_all(fds)
                del document

    def close(self) -> None:
        """Close it, and tell threads that wait so. Closing twice is fine."""
        with self._changed:
            self._gone = True
            self._changed.notify_all()
            if self._channel.fileno() >= 0:
                # Closing a descriptor does not wake who sleeps on it, and its number may be another's at once.
                with socket.socket(fileno=os.dup(self._channel.fileno())) as same:
                    same.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: self._reader is None, timeout=1.0)
        self._channel.close()

    def close_copy(self) -> None:
        """In a forked child: close what it has inherited. The parent's connection stays as it is."""
        self._gone = True
        self._channel.close()

    def _send(self, document: Document, fds: Sequence[int], deadline: float | None) -> None:
        """Send, waiting no longer than until `deadline` for a host that does not read."""
        while True:
            with self._sending:
                if self._gone:
                    raise self._closed(sent=False)
                try:
                    if self._channel.send(document, fds, wait=False):
                        return
                except Closed:
                    self._gone = True
                    raise self._closed(sent=False) from None
            poll = select.poll()
            poll.register(self._channel, select.POLLOUT)
            if not poll.poll(_milliseconds(deadline)):
                raise _silent(self._machine)

    def _await(self, number: int, deadline: float | None) -> Received:
        """The answer to request `number`: read by this thread, or by one that reads for all."""
        me = threading.get_ident()
        while True:
            try:
                with self._changed:
                    while self._reader is not None and self._answers[number] is None and not self._gone:
                        if not self._changed.wait(_left(deadline)):
                            raise _silent(self._machine)
                    answer = self._answers[number]
                    if answer is not None:
                        return answer
                    if self._gone:
                        raise self._closed()
                    self._reader = me
                self._read_until(number, deadline)
            finally:  # around all of it: a Ctrl-C may come anywhere, and nobody must wait for a reader who is gone
                self._stop_reading(me)

    def _read_until(self, number: int, deadline: float | None) -> None:
        while self._answers[number] is None:
            left = _left(deadline)
            try:
                received = self._channel.receive(timeout=None if left is None else max(left, 0.001))
            except Timeout:
                raise _silent(self._machine) from None
            except Closed:
                self._gone = True
                raise self._closed() from None
            if received is not None:
                self._dispatch(*received)

    def _stop_reading(self, me: int) -> None:
        """Let another thread read, if it was this one's turn."""
        with self._changed:
            if self._reader == me:
                self._reader = None
                self._changed.notify_all()

    def _dispatch(self, document: Document, fds: list[int]) -> None:
        number = document.get("answer")
        if number is None:
            self._on_push(document, fds)
            return
        with self._changed:
            if number in self._answers:
                self._answers[number] = document, fds
                self._changed.notify_all()
                return
        close_all(fds)  # nobody waits for it any more

    def _closed(self, *, sent: bool = True) -> Closed:
        return Closed(
            f"machine {self._machine!r} is gone: its host has ended, or this connection was closed",
            name=self._machine,
            sent=sent,
        )


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()


def _milliseconds(deadline: float | None) -> float | None:
    left = _left(deadline)
    return None if left is None else max(left, 0.0) * 1000
