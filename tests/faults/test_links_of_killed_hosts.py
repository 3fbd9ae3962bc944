"""Links and named memory belong to the instance, also when its host was killed between two of its incarnations."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from tests.eventually import PATIENCE
from tests.images.relay import FORMAT

from .killing import kill, victims

if TYPE_CHECKING:
    from collections.abc import Iterator

RELAY = str(Path(__file__).parent.parent / "images" / "relay.py")
AT_ONCE = mk.Restart("always", delay=0.0, limit=1000)
REMEMBERS = """
def main(kernel):
    memory = kernel.memory("count", 4096)
    for message in kernel.messages():
        memory[0] += 1
        message.reply(bytes(memory[:1]))
"""


@pytest.fixture
def machine(cpus: tuple[int, ...]) -> Iterator[mk.Machine]:
    with mk.Machine(cpus=cpus, memory="512M", name="lasting", persist=True) as machine:
        try:
            yield machine
        finally:
            machine.shutdown()


def make(
    machine: mk.Machine, name: str, cmdline: str = "", spec: str = RELAY, restart: object = "never"
) -> mk.Instance:
    instance = machine.create(name, memory="32M", exclusive=False, restart=restart)
    instance.load(spec, cmdline)
    instance.boot(until="ready")
    return instance


def census(machine: mk.Machine) -> dict[str, int]:
    """What the host holds; it is joined for that, if it is another one."""
    return machine._membership.request("census", {})


@pytest.mark.parametrize("which", ["host", "zygote"])
def test_link_of_a_program_goes_on_over_a_reboot_by_the_next_host(machine, which):
    """What the last host kept of it the next one has."""
    web = make(machine, "web")
    with machine.connect("web") as link:
        assert link.request(b"epoch", timeout=PATIENCE).payload == b"1"
        kill(*victims(machine, which))
        web.reboot()
        assert link.request(b"epoch", timeout=PATIENCE).payload == b"2"
        kill(*victims(machine, which))
        web.reboot()
        assert link.request(b"epoch", timeout=PATIENCE).payload == b"3"


def test_messages_that_wait_over_a_killed_host_and_a_restart_arrive_in_order(machine):
    """Between two instances and a program; the one in the middle is killed together with the host, again and again."""
    make(machine, "last")
    middle = make(machine, "middle", "last", restart=AT_ONCE)
    with machine.connect("middle") as link:
        sent = due = 0
        for _ in range(3):
            for _ in range(200):
                link.send(FORMAT.pack(sent, 0), timeout=PATIENCE)
                sent += 1
            census(machine)
            kill(*[pid for pid in (middle.pid, machine.pid) if pid])
            while due < sent:
                number, again = FORMAT.unpack(link.recv(timeout=PATIENCE).payload)
                assert number == due or (again and number < due), (number, again, due)
                due = max(due, number + 1)
        assert middle.epoch > 1


def test_link_is_over_soon_when_nobody_is_left_who_could_go_on_with_it(machine):
    """Host and zygote had what a successor needs, so none is waited for; a verb starts the next host."""
    make(machine, "other")
    web = make(machine, "web", restart=AT_ONCE)
    with machine.connect("web") as link:
        kill(*victims(machine, "both"), web.pid)
        begin = time.monotonic()
        with pytest.raises(mk.Closed):
            link.recv(timeout=PATIENCE)
        assert (
            time.monotonic() - begin < 10.0
        )  # a second, unless the system is loaded; a minute where a host is to come
    with machine.connect("other", timeout=PATIENCE) as link:
        assert link.request(b"epoch", timeout=PATIENCE).payload == b"1"


@pytest.mark.parametrize("which", ["host", "both"])
def test_named_memory_is_there_after_a_reboot_by_the_next_host(machine, tmp_path, which):
    """It is passed on by descriptor: the zygote had one, and the instance itself."""
    (tmp_path / "remembers.py").write_text(REMEMBERS)
    web = make(machine, "web", spec=f"{tmp_path / 'remembers.py'}:main")
    with machine.connect("web") as link:
        assert link.request(b"", timeout=PATIENCE).payload == b"\x01"
    kill(*victims(machine, which))
    machine.connect("web", timeout=PATIENCE).close()  # so it has come to its host
    web.reboot()
    with machine.connect("web", timeout=PATIENCE) as link:
        assert link.request(b"", timeout=PATIENCE).payload == b"\x02"


def test_links_that_are_over_leave_nothing_with_the_next_host(machine):
    """Those of a program that has ended, or closed them, while there was no host among them."""
    make(machine, "web")
    machine.connect("web").close()
    links = [machine.connect("web", capacity="64K") for _ in range(4)]
    kill(machine.pid)
    links[0].close()
    before = census(machine)["descriptors"]
    for link in links[1:]:
        link.close()
    deadline = time.monotonic() + PATIENCE
    while census(machine)["descriptors"] > before - 3 * 6:  # three objects and sockets of two sides each
        assert time.monotonic() < deadline


def test_stopped_program_keeps_its_links_over_a_killed_host(machine, tmp_path):
    """It comes when it can; until then the next host takes it for busy."""
    web = make(machine, "web")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with mk.Machine.attach("lasting") as mine, mine.connect("web") as link:
                os.write(writer, link.request(b"epoch", timeout=PATIENCE).payload)
                os.kill(os.getpid(), signal.SIGSTOP)
                mine._membership.request("census", {})
                os.write(writer, link.request(b"epoch", timeout=PATIENCE).payload)
                status = 0
        finally:
            os._exit(status)
    os.close(writer)
    try:
        assert os.read(reader, 1) == b"1"
        os.waitpid(pid, os.WUNTRACED)
        kill(machine.pid)
        web.reboot()
        os.kill(pid, signal.SIGCONT)
        assert os.read(reader, 1) == b"2"
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGCONT)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
