"""`machine.events()`: what happens to instances is told, in order, to who listens; and to nobody who does not."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from multikernel.host.events import MOST_WAITING
from tests.eventually import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


IMAGE = """
def main(kernel):
    for message in kernel.messages():
        raise LookupError("on purpose")
"""


@pytest.fixture
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="1G") as machine:
        yield machine


@pytest.fixture
def web(machine: mk.Machine, tmp_path: Path) -> Callable[..., mk.Instance]:
    """Makes an instance called web, loaded."""

    def make(**policy: object) -> mk.Instance:
        web = machine.create("web", **policy)
        (tmp_path / "image.py").write_text(IMAGE)
        web.load(str(tmp_path / "image.py"))
        return web

    return make


def told(events, count: int) -> list[mk.Event]:
    return [events.recv(timeout=PATIENCE) for _ in range(count)]


def test_life_of_an_instance_is_told_step_by_step(machine, web):
    with machine.events() as events:
        it = web()
        it.boot()
        os.kill(it.pid, signal.SIGKILL)
        it.wait(timeout=PATIENCE)
        it.boot()
        it.halt()
        it.delete()
        came = told(events, 7)
        with pytest.raises(mk.Timeout):
            events.recv(timeout=0)
    assert [(event.kind, event.state, event.epoch, event.end and event.end.reason) for event in came] == [
        ("created", "ready", 0, None),
        ("state", "loaded", 0, None),
        ("state", "active", 1, None),
        ("state", "failed", 1, "signal"),
        ("state", "active", 2, None),
        ("state", "loaded", 2, "halted"),
        ("deleted", "loaded", 2, None),
    ]
    assert {(event.name, event.id, event.lost) for event in came} == {("web", it.id, 0)}
    assert [event.time_ns for event in came] == sorted(event.time_ns for event in came)
    assert came[3].end.signal == signal.SIGKILL


def test_hung_one_is_told_and_so_is_that_it_goes_on(machine, web):
    it = web(watchdog=0.5)
    it.boot(until="ready")
    with machine.connect("web", timeout=PATIENCE) as link, machine.events() as events:
        os.kill(it.pid, signal.SIGSTOP)
        link.send_many([b"", b""])
        assert [(event.kind, event.state) for event in told(events, 1)] == [("hung", "active")]
        os.kill(it.pid, signal.SIGCONT)
        assert told(events, 1)[0].kind in ("alive", "state")  # it gives a sign, and dies of the message


def test_events_are_for_poll_and_for_asyncio(machine, web):
    async def listen(events) -> list[str]:
        found = []
        async for event in events:
            found.append(event.state)
            if event.kind == "deleted":
                break
        return found

    with machine.events() as events:
        poll = select.poll()
        poll.register(events, select.POLLIN)
        assert poll.poll(0) == []
        web().delete()
        assert poll.poll(PATIENCE * 1000)
        assert asyncio.run(asyncio.wait_for(listen(events), PATIENCE)) == ["ready", "loaded", "loaded"]


def test_iteration_ends_with_the_machine(web):
    machine = mk.Machine(memory="64M")
    with machine.events() as events:
        machine.create("web", memory="1M")
        machine.close()
        assert [event.kind for event in events] == ["created"]
        with pytest.raises(mk.Closed):
            events.recv(timeout=PATIENCE)


def test_listener_that_does_not_read_costs_little_and_is_told_how_much_it_missed(machine):
    pairs = 3 * MOST_WAITING  # more than a socket holds, and the host keeps
    with machine.events() as events:
        for _ in range(pairs):
            machine.create("web", memory="1M")
            machine.delete("web")
        came = told(events, 2 * MOST_WAITING)
        for _ in range(2):  # by then the host has put what it kept into the socket
            machine._membership.request("census", {})
        machine.create("last", memory="1M")
        while came[-1].name != "last":
            came += told(events, 1)
    assert sum(event.lost for event in came) > 0
    assert len(came) + sum(event.lost for event in came) == 2 * pairs + 1


def test_closed_events_say_so_and_a_fork_s_copy_too(machine):
    events = machine.events()
    pid = os.fork()
    if pid == 0:
        try:
            events.recv(timeout=0)
        except mk.NotOwner:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    events.close()
    events.close()
    with pytest.raises(mk.Closed, match="closed here"):
        events.recv()


def test_who_listens_is_no_client_more(machine):
    with machine.events():
        assert machine.view.machine().clients == 1
