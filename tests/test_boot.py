"""A boot, phase by phase; and several at once."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from multikernel.shm.records import PHASES
from multikernel.tools import together
from tests.eventually import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator


SERVES = "def main(kernel):\n    for message in kernel.messages(): message.reply(message.payload)\n"


@pytest.fixture
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="1G") as machine:
        yield machine


@pytest.fixture
def image(tmp_path: Path) -> str:
    (tmp_path / "image.py").write_text(SERVES)
    return str(tmp_path / "image.py")


def several(machine: mk.Machine, image: str, count: int) -> list[mk.Instance]:
    """Instances that share a cpu."""
    cpu = min(os.sched_getaffinity(0))
    made = [machine.create(f"web{i}", cpus=[cpu], memory="1M", exclusive=False) for i in range(count)]
    for instance in made:
        instance.load(image)
    return made


def test_phases_of_a_boot_are_timed_from_the_host_s_claim_to_the_first_wait(machine, image):
    web = machine.create("web")
    assert machine.proc.snapshot("instances/web/boot") == {"epoch": 0, "phases": []}
    web.load(image)
    for epoch in (1, 2):
        web.boot(until="ready")
        boot = machine.proc.snapshot("instances/web/boot")
        assert boot["epoch"] == epoch
        assert [each["phase"] for each in boot["phases"]] == ["claimed", *PHASES[:6]]
        times = [each["at_ns"] for each in boot["phases"]]
        assert times[0] == 0
        assert times == sorted(times)
        assert times[-1] < PATIENCE * 1e9
        assert [each["took_ns"] for each in boot["phases"]] == [0, *(b - a for a, b in itertools.pairwise(times))]
        web.halt()
    lines = machine.proc["instances/web/boot"].splitlines()
    assert lines[0].split() == ["PHASE", "AT(ms)", "TOOK(ms)"]
    assert [line.split()[0] for line in lines[1:]] == ["claimed", *PHASES[:6]]


def test_several_boot_at_once_and_what_goes_wrong_with_one_is_its_own(machine, image, tmp_path):
    made = several(machine, image, 5)
    (tmp_path / "broken.py").write_text("raise LookupError('on purpose')")
    made[2].load(str(tmp_path / "broken.py"))
    errors = together.boot(made, "ready", PATIENCE)
    assert [type(error) for error in errors] == [type(None), type(None), mk.BootError, type(None), type(None)]
    assert [each.state for each in made] == ["active", "active", "failed", "active", "active"]
    assert together.boot([], "active", PATIENCE) == []


def test_boots_overlap_in_the_host(machine, tmp_path):
    """The first of them can only become active when the second one has been booted, too."""
    first, second = (machine.create(name, memory="1M", exclusive=False) for name in ("first", "second"))
    go = tmp_path / "go"
    (tmp_path / "waits.py").write_text(
        "import os, time\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.001)\n"
        "def main(kernel):\n    for message in kernel.messages(): pass\n"
    )
    (tmp_path / "goes.py").write_text(
        f"open({str(go)!r}, 'w').close()\ndef main(kernel):\n    for message in kernel.messages(): pass\n"
    )
    first.load(str(tmp_path / "waits.py"))
    second.load(str(tmp_path / "goes.py"))
    assert together.boot([first, second], "active", PATIENCE) == [None, None]


def test_boot_twice_at_the_same_time_is_done_once_and_refused_once(machine, image):
    """As from two shells: each has joined by itself."""
    web = machine.create("web")
    web.load(image)
    outcomes: list[object] = []
    begin = threading.Barrier(2)

    def boot() -> None:
        with mk.Machine.attach(machine.name) as joined:
            begin.wait(PATIENCE)
            try:
                joined["web"].boot(timeout=PATIENCE)
                outcomes.append("booted")
            except mk.StateError as error:
                outcomes.append(error.state)

    threads = [threading.Thread(target=boot) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(map(str, outcomes)) == ["active", "booted"]
    assert (web.state, web.epoch) == ("active", 1)
