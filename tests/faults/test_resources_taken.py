"""What an instance was given is taken away from outside: its cpus, or the memory that it would need."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from tests.eventually import PATIENCE

from .cgroups import group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .cgroups import Group

ECHO = str(Path(__file__).parent.parent / "images" / "echo.py")
LIMIT = 160 << 20  # of which a machine with two instances that do nothing takes a third

EATS = """
    def main(kernel):
        kept = []
        for message in kernel.messages():
            while message.payload == b"eat":
                kept.append(bytearray(1 << 20))
            message.reply(message.payload)
"""


def misplaced(machine: mk.Machine, name: str) -> bool:
    return machine.proc.snapshot(f"instances/{name}/status")["misplaced"]


# --- cpus


@pytest.fixture
def cpuset(cpus: tuple[int, ...]) -> Iterator[Group]:
    """Both cpus. What becomes of processes when a cpuset is shrunk is what becomes of them when a cpu goes offline."""
    with group("cpuset") as made:
        if not made.v2:
            made.write("cpuset.mems", (made.path.parent / "cpuset.mems").read_text())
        made.write("cpuset.cpus", ",".join(map(str, cpus)))
        yield made


@pytest.mark.two_cpus
def test_cpu_that_is_taken_from_an_instance_is_reported_and_missed_by_its_next_boot_only(cpuset, cpus):
    """It goes on where the system has put it; so do host and others, and with the cpu all is as before."""
    with cpuset.entered():
        machine = mk.Machine(cpus=cpus, memory="256M")
    with machine:
        kept = machine.create("kept", cpus=[cpus[0]], exclusive=False)
        web = machine.create("web", cpus=[cpus[1]], exclusive=False)
        wide = machine.create("wide", cpus=cpus, exclusive=False)
        for instance in (kept, web, wide):
            instance.load(f"{ECHO}:main")
            instance.boot(until="ready")
        with machine.connect("web") as link, machine.connect("kept") as other:
            cpuset.write("cpuset.cpus", cpus[0])
            assert link.request(b"moved", timeout=PATIENCE).payload == b"moved"
            assert other.request(b"here", timeout=PATIENCE).payload == b"here"
            assert (misplaced(machine, "web"), misplaced(machine, "kept")) == (True, False)
            assert web.state == "active"
        for instance, why in (
            (web, rf"cannot pin to cpus \[{cpus[1]}\].*offline, or outside of the cpuset"),
            (wide, rf"pinned to cpus \[{cpus[0]}, {cpus[1]}\], but the system allows \[{cpus[0]}\]"),
        ):
            assert instance.halt(timeout=PATIENCE).reason == "halted"
            with pytest.raises(mk.BootError, match=why):
                instance.boot()
            assert instance.state == "failed"
        kept.reboot(timeout=PATIENCE)
        cpuset.write("cpuset.cpus", ",".join(map(str, cpus)))
        web.boot(until="ready")
        assert os.sched_getaffinity(web.pid) == {cpus[1]}
        with machine.connect("web") as link:
            assert link.request(b"back", timeout=PATIENCE).payload == b"back"
        assert not misplaced(machine, "web")


@pytest.mark.two_cpus
def test_instance_whose_cpu_is_taken_is_restarted_when_it_is_back(cpuset, cpus):
    """Until then its policy tries in vain, and says what is missing."""
    with cpuset.entered():
        machine = mk.Machine(cpus=cpus, memory="256M")
    with machine, machine.events() as events:
        web = machine.create("web", cpus=[cpus[1]], restart=mk.Restart("always", delay=0.01, longest=0.05, limit=1000))
        web.load(f"{ECHO}:main")
        web.boot(until="ready")
        with machine.connect("web") as link:
            cpuset.write("cpuset.cpus", cpus[0])
            os.kill(web.pid, 9)
            failed = 0
            while failed < 2:
                event = events.recv(timeout=PATIENCE)
                failed += event.end is not None and "outside of the cpuset" in event.end.traceback
            cpuset.write("cpuset.cpus", ",".join(map(str, cpus)))
            assert link.request(b"waited", timeout=PATIENCE).payload == b"waited"


# --- memory


def test_instance_that_the_system_kills_for_want_of_memory_says_so_and_the_others_go_on(tmp_path):
    """By the machine's memory cgroup, to its end: nobody but who asked for so much is killed."""
    (tmp_path / "eats.py").write_text(textwrap.dedent(EATS))
    with group("memory") as limited:
        limited.write("memory.max" if limited.v2 else "memory.limit_in_bytes", LIMIT)
        if limited.v2:
            limited.write("memory.swap.max", 0)
        with limited.entered():
            machine = mk.Machine(memory="64M")
        with machine:
            web = machine.create("web", memory="16M", exclusive=False)
            other = machine.create("other", memory="16M", exclusive=False, restart=mk.Restart("on-failure", delay=0.01))
            for instance in (web, other):
                instance.load(f"{tmp_path}/eats.py:main")
                instance.boot(until="ready")
            with machine.connect("web") as eater, machine.connect("other") as link:
                eater.send(b"eat")
                end = web.wait(timeout=PATIENCE)
                assert (end.reason, end.signal, web.state) == ("memory", 9, "failed")
                assert "oom_kill" in web.panic.cause
                assert [message.length for message in web.panic.messages] == [3]
                with pytest.raises(mk.Closed):
                    eater.recv(timeout=PATIENCE)
                assert link.request(b"there?", timeout=PATIENCE).payload == b"there?"
                assert other.epoch == 1
            web.boot(until="ready")
            with machine.connect("web") as link:
                assert link.request(b"again", timeout=PATIENCE).payload == b"again"
