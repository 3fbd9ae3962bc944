"""Two pinned instances under load: nothing lost, nothing wrong, and the host is not in the way."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import pytest

import multikernel as mk

IMAGES = Path(__file__).parent.parent / "images"
SEED = int(os.environ.get("MULTIKERNEL_SEED", "20260101"))

pytestmark = [pytest.mark.two_cpus, pytest.mark.timeout(240)]


def boot_exchange(machine: mk.Machine, cpus: tuple[int, ...], count: int) -> list[mk.Link]:
    """Two instances, each on a core of its own; sent b"begin", the first exchanges COUNT messages each way."""
    for name, cpu, cmdline in (("b", cpus[1], f"{count} {SEED}"), ("a", cpus[0], f"b {count} {SEED}")):
        instance = machine.create(name, cpus=[cpu], memory="32M")
        instance.load(f"{IMAGES / 'exchange.py'}:main", cmdline=cmdline)
        instance.boot()
    return [machine.connect(name, capacity="64K", timeout=20) for name in ("a", "b")]


def test_a_million_messages_of_random_sizes_cross_and_each_is_right(cpus: tuple[int, ...]) -> None:
    """DESIGN: both directions at once, every message compared with the one that is due."""
    count = 500_000
    with mk.Machine(cpus=cpus[:2], memory="128M") as machine:
        links = boot_exchange(machine, cpus, count)
        links[0].send(b"begin")
        for link in links:
            assert link.request(b"done?", timeout=200).payload == b"done"
        for name, cpu in (("a", cpus[0]), ("b", cpus[1])):
            status = machine.proc[f"instances/{name}/status"]
            assert f"\nCpu:\t{cpu}\n" in status
            assert machine[name].state == "active"
            assert machine[name].halt().reason == "halted"
        for link in links:
            link.close()


def test_with_the_host_stopped_instances_exchange_messages_and_every_view_is_read(cpus: tuple[int, ...]) -> None:
    """No message passes through the host, and no view needs it."""
    count = 50_000
    with mk.Machine(cpus=cpus[:2], memory="128M") as machine:
        links = boot_exchange(machine, cpus, count)
        os.kill(machine.pid, signal.SIGSTOP)
        try:
            links[0].send(b"begin")
            for link in links:
                assert link.request(b"done?", timeout=100).payload == b"done"
            for name in ("a", "b"):
                assert machine.proc.snapshot(f"instances/{name}/status")["counters"]["received"] >= count
            for path in machine.proc:
                assert isinstance(machine.proc[path], str)
            for name in ("a", "b"):
                assert "\nState:\tactive\n" in machine.proc[f"instances/{name}/status"]
        finally:
            os.kill(machine.pid, signal.SIGCONT)
        for link in links:
            link.close()


def test_ten_thousand_interrupts_on_random_vectors_are_counted_exactly(cpus: tuple[int, ...]) -> None:
    """They coalesce on the way, but none is lost, and the view says the same."""
    rng = random.Random(SEED)
    sent = [0] * 64
    with mk.Machine(cpus=cpus[:1], memory="64M") as machine:
        counter = machine.create("counter", memory="32M")
        counter.load(f"{IMAGES / 'interrupts.py'}:main")
        counter.boot()
        with machine.connect("counter") as link:
            for _ in range(10_000):
                vector = rng.randrange(64)
                sent[vector] += 1
                link.ipi(vector)
            assert json.loads(link.request(b"how many?", timeout=20).payload) == sent
            rows = [line.split() for line in machine.proc["interrupts"].splitlines()[1:]]
            shown = {int(row[0].rstrip(":")): int(row[1]) for row in rows if row[0].rstrip(":").isdigit()}
            assert [shown.get(vector, 0) for vector in range(64)] == sent
