"""Links and named memory outlive an incarnation also when the host that held them was killed before."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

import multikernel as mk
from multikernel.host import address
from multikernel.host.rundir import RunDir
from tests.eventually import PATIENCE
from tests.faults.killing import kill, victims, zygote
from tests.succession import RELAY, Stream, crash, in_thread

AT_ONCE = mk.Restart("always", limit=1000, delay=0.0)

COUNTS = """
def main(kernel):
    table = kernel.memory("table", 4096)
    for message in kernel.messages():
        table[0] += 1
        message.reply(b"%d %d" % (kernel.epoch, table[0]))
"""


@pytest.fixture
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="256M", name=f"succession-{os.getpid()}", persist=True) as machine:
        yield machine
        machine.shutdown(timeout=0)


def make(machine: mk.Machine, name: str, cmdline: str = "", spec: str = RELAY) -> mk.Instance:
    instance = machine.create(name, memory="32M", exclusive=False, restart=AT_ONCE)
    instance.load(spec, cmdline)
    instance.boot(until="ready")
    return instance


@pytest.mark.parametrize("which", ["host", "zygote"])
def test_a_link_goes_on_when_first_the_host_and_then_the_instance_is_killed(machine, which):
    web = make(machine, "web")
    with machine.connect("web", capacity="64K") as link:
        for epoch in (1, 2, 3):
            assert link.request(b"epoch", timeout=PATIENCE).payload == b"%d" % epoch
            kill(*victims(machine, which))
            assert link.request(b"epoch", timeout=PATIENCE).payload == b"%d" % epoch
            crash(web)
        assert link.request(b"epoch", timeout=PATIENCE).payload == b"4"


def test_an_instance_that_dies_with_its_host_is_succeeded_under_the_next(machine):
    """Nobody was there to say that a successor is due."""
    web = make(machine, "web")
    with machine.connect("web", capacity="64K") as link:
        stream = Stream(link)
        stream.step()
        os.kill(web.pid, signal.SIGSTOP)
        pid = web.pid
        kill(machine.pid)
        os.kill(pid, signal.SIGKILL)
        for _ in range(10):
            stream.step()
        stream.finish()
        assert web.epoch == 2


def test_a_successor_is_waited_for_however_long_the_next_host_takes_to_come(machine):
    """A second is what a host has to say what becomes of an instance; the next one has it from when it is there."""
    web = make(machine, "web")
    with machine.connect("web", capacity="64K") as link:
        kill(zygote(machine))  # the next one is in a session of its own: the end of the host does not make it go on
        assert link.request(b"epoch", timeout=PATIENCE).payload == b"1"
        stopped, pids = zygote(machine), (machine.pid, web.pid)
        os.kill(stopped, signal.SIGSTOP)
        replies: list[bytes] = []
        try:
            kill(*pids)
            asker = in_thread(lambda: replies.append(link.request(b"epoch", timeout=PATIENCE).payload))
            with pytest.raises(mk.Timeout):
                address.connect(RunDir(machine.name), timeout=1.5)
        finally:
            os.kill(stopped, signal.SIGCONT)
        asker.join(2 * PATIENCE)
        assert replies == [b"2"]


def test_a_chain_goes_on_over_killed_hosts_and_instances(machine):
    make(machine, "b")
    make(machine, "a", "b")
    with machine.connect("a", capacity="64K") as link:
        stream = Stream(link)
        for which in ("a", "host", "b", "zygote", "a", "host", "b"):
            until = stream.due + 300
            while stream.due < until:
                stream.step()
            if which in ("a", "b"):
                crash(machine[which])
            else:
                kill(*victims(machine, which))
        stream.finish()
        assert machine["a"].epoch > 1
        assert machine["b"].epoch > 1


def test_named_memory_outlives_host_and_incarnation(machine, tmp_path):
    path = tmp_path / "counts.py"
    path.write_text(COUNTS)
    web = make(machine, "web", spec=str(path))
    with machine.connect("web", capacity="64K") as link:
        assert link.request(b"", timeout=PATIENCE).payload == b"1 1"
        for which in ("host", "host", "zygote"):
            kill(*victims(machine, which))
        crash(web)
        assert link.request(b"", timeout=PATIENCE).payload == b"2 2"
        assert machine.view.instance(web.id).named == 4096
