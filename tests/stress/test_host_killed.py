"""Host, zygote and instances of a persistent machine are killed at random moments, under a stream that loses nothing.

Some seconds here; MULTIKERNEL_STRESS=20 makes it minutes.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

import multikernel as mk
from tests.eventually import PATIENCE
from tests.faults.killing import is_told, kill, zygote
from tests.images.relay import FORMAT

FACTOR = int(os.environ.get("MULTIKERNEL_STRESS", "1"))
SEED = int(os.environ.get("MULTIKERNEL_SEED", "20260101"))
KILLS = 12 * FACTOR
IMAGES = Path(__file__).parent.parent / "images"
VICTIMS = ("host", "zygote", "both", "instance", "instance and host")

pytestmark = [pytest.mark.stress, pytest.mark.slow, pytest.mark.two_cpus, pytest.mark.timeout(120 + 60 * FACTOR)]


@pytest.fixture
def machine(cpus: tuple[int, ...]):
    with mk.Machine(cpus=cpus, memory="512M", name="lasting", persist=True) as machine:
        try:
            yield machine
        finally:
            machine.shutdown()


def boot(machine: mk.Machine, name: str, image: str, cmdline: str = "", **policy: object) -> mk.Instance:
    instance = machine.create(name, memory="64M", exclusive=False, **policy)
    instance.load(f"{IMAGES / image}:main", cmdline=cmdline)
    instance.boot(until="ready")
    return instance


def answers(machine: mk.Machine, name: str, deadline: float) -> None:
    """An instance that is restarted answers again: `mk.Closed` and `StateError` are of the one before it."""
    while True:
        try:
            with machine.connect(name, capacity="64K", timeout=PATIENCE) as link:
                assert link.request(b"there?", timeout=PATIENCE).payload == b"there?"
                return
        except (mk.Closed, mk.StateError):
            assert time.monotonic() < deadline


def test_stream_loses_nothing_and_all_comes_back_whatever_is_killed_and_when(machine):
    """Two instances stream; two others, which are restarted, are killed with host and zygote or without."""
    rng = random.Random(SEED)
    endless = mk.Restart("always", delay=0.01, longest=0.1, limit=10**6)
    sink = boot(machine, "sink", "stream.py")
    source = boot(machine, "source", "stream.py", "to sink")
    for name in ("one", "two"):
        boot(machine, name, "echo.py", restart=endless)
    survivors = {instance.name: (instance.pid, instance.epoch) for instance in (sink, source)}
    with machine.connect("sink") as taken, machine.connect("source") as sent:
        for number in range(KILLS):
            which = rng.choice(VICTIMS)
            other, host = zygote(machine), machine.pid
            name = rng.choice(("one", "two"))
            pid = machine[name].pid
            pids = {
                "host": [host],
                "zygote": [other],
                "both": [host, other],
                "instance": [pid],
                "instance and host": [pid, host],
            }[which]
            kill(*[each for each in pids if each])  # 0: just now there is none
            before = int(taken.request(b"?", timeout=PATIENCE).payload)
            for each in ("one", "two"):
                answers(machine, each, time.monotonic() + PATIENCE)
            assert int(taken.request(b"?", timeout=PATIENCE).payload) > before, (number, which)
        total = int(sent.request(b"stop", timeout=PATIENCE).payload)
        while int(taken.request(b"?", timeout=PATIENCE).payload) < total:
            pass
        assert int(taken.request(b"?", timeout=PATIENCE).payload) == total
    for instance in (sink, source):
        assert (instance.pid, instance.epoch) == survivors[instance.name]
        assert instance.halt(timeout=PATIENCE).reason == "halted"
    ends = [machine[name].last_end for name in ("one", "two") if machine[name].last_end]
    assert any(end.signal == signal.SIGKILL or (end.reason == "unknown" and not is_told("both")) for end in ends)


def test_chain_of_instances_loses_nothing_though_each_of_them_is_killed_with_its_hosts(machine):
    """A program, one instance, another, and back: both are restarted, and links go on, whoever hands them over."""
    rng = random.Random(SEED)
    endless = mk.Restart("always", delay=0.0, longest=0.1, limit=10**6)
    boot(machine, "last", "relay.py", restart=endless)
    boot(machine, "middle", "relay.py", "last", restart=endless)
    sent = due = 0
    with machine.connect("middle") as link:
        for number in range(KILLS):
            for _ in range(rng.randrange(400)):
                link.send(FORMAT.pack(sent, 0), timeout=PATIENCE)
                sent += 1
            other, host = zygote(machine), machine.pid
            which = rng.choice(("host", "zygote", "last", "middle", "middle and host", "last and zygote"))
            pids = {"host": host, "zygote": other, "last": machine["last"].pid, "middle": machine["middle"].pid}
            kill(*[pids[each] for each in which.split(" and ") if pids[each]])
            while due < sent:
                got, again = FORMAT.unpack(link.recv(timeout=PATIENCE).payload)
                assert got == due or (again and got < due), (number, which, got, again, due)
                due = max(due, got + 1)
