"""A stream through instances that end meanwhile, and what ends them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import multikernel as mk
from tests.eventually import PATIENCE, until
from tests.images.relay import FORMAT

RELAY = str(Path(__file__).parent / "images" / "relay.py")


@pytest.fixture(scope="module")
def running() -> Iterator[mk.Machine]:
    with mk.Machine(memory="256M") as machine:
        yield machine


@pytest.fixture
def machine(running: mk.Machine) -> Iterator[mk.Machine]:
    yield running
    for name in list(running):
        with contextlib.suppress(mk.StateError):
            running[name].kill()
        number = running[name].id
        running.delete(name)
        # The host says that its pages are gone when we have taken the last.
        until(lambda number=number: running.watched(number) is None)


def make(
    machine: mk.Machine, name: str, cmdline: str = "", spec: str = RELAY, restart: object = "never"
) -> mk.Instance:
    instance = machine.create(name, memory="32M", exclusive=False, cpus=[min(os.sched_getaffinity(0))], restart=restart)
    instance.load(spec, cmdline)
    instance.boot()
    return instance


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def crash(instance: mk.Instance) -> None:
    """Kill what runs of it, whatever that is by now."""
    try:
        os.kill(instance.pid or 1 << 22, signal.SIGKILL)
    except ProcessLookupError:  # between two
        pass


class Stream:
    """Numbers sent by a link that come back: none is lost, and one that comes twice says so.

    Two at most may be in the hands of each incarnation that ends: one on the way there, one on the way back.
    """

    def __init__(self, link: mk.Link) -> None:
        self.link = link
        self.sent = self.due = self.again = 0

    def step(self) -> None:
        """Send what there is room for, up to some; take what is there."""
        for _ in range(16):
            if self.sent - self.due > 1000 or not self.link.try_send(FORMAT.pack(self.sent, 0)):
                break
            self.sent += 1
        for message in self.link.try_recv_many(64):
            self.take(message)

    def take(self, message: mk.Message) -> None:
        number, again = FORMAT.unpack(message.payload)
        assert number == self.due or (again and number < self.due), (number, again, self.due)
        self.due = max(self.due, number + 1)
        self.again += bool(again)

    def finish(self) -> None:
        while self.due < self.sent:
            self.take(self.link.recv(timeout=PATIENCE))
