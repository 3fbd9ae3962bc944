"""Many instances at a time, and many lives one after the other, of every kind of image.

Some seconds here; MULTIKERNEL_STRESS=20 makes it a thousand lives.
"""

from __future__ import annotations

import contextlib
import os
import random
import zipapp
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import multikernel as mk
from tests.eventually import PATIENCE
from tests.images import ends
from tests.native.build import build
from tests.test_lifecycle import held_by, zygote_with_its_spare

FACTOR = int(os.environ.get("MULTIKERNEL_STRESS", "1"))
SEED = int(os.environ.get("MULTIKERNEL_SEED", "20260101"))
MANY = 64
LIVES = 50 * FACTOR

pytestmark = [pytest.mark.stress, pytest.mark.slow, pytest.mark.timeout(120 + 60 * FACTOR)]

SCRIPT = Path(__file__).parent.parent / "images" / "ends.py"


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Callable[..., object] | str]:
    """One of each kind; they all do the same."""
    app = tmp_path / "app"
    app.mkdir()
    (app / "__main__.py").write_text(SCRIPT.read_text())
    zipapp.create_archive(app, tmp_path / "app.pyz")
    return {
        "function": ends.main,
        "module": "tests.images.ends:main",
        "script": f"{SCRIPT}:main",
        "zipapp": str(tmp_path / "app.pyz"),
        "directory": f"{app}/",
        "native": str(build(SCRIPT.with_suffix(".c"), tmp_path)),
    }


@pytest.fixture
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="1G") as machine:
        yield machine


def test_sixty_four_instances_answer_at_a_time_and_the_view_has_them_all(machine, images):
    kinds = list(images.values())
    with contextlib.ExitStack() as links:
        instances = [machine.create(f"i{number}", memory="4M", exclusive=False) for number in range(MANY)]
        for number, instance in enumerate(instances):
            instance.load(kinds[number % len(kinds)], cmdline=f"number={number}")
            instance.boot()
        opened = [links.enter_context(machine.connect(each.name, capacity="64K")) for each in instances]
        for number, link in enumerate(opened):
            link.send(b"%d" % number)
        assert [link.recv(timeout=PATIENCE).payload for link in opened] == [b"%d" % n for n in range(MANY)]
        for number, instance in enumerate(instances):
            status = machine.proc.snapshot(f"instances/{instance.name}/status")
            assert (status["state"], status["pid"], status["epoch"]) == ("active", instance.pid, 1)
            assert status["counters"]["received"] == status["counters"]["sent"] == 1
            assert machine.proc[f"instances/{instance.name}/cmdline"] == f"number={number}\n"
        assert set(machine) == {each.name for each in instances}
        assert sum(image["users"] for image in machine.proc.snapshot("kimages")) == MANY
        for instance in instances[::2]:
            assert instance.halt().reason == "halted"
        for number, link in list(enumerate(opened))[1::2]:  # the others go on
            assert link.request(b"%d again" % number, timeout=PATIENCE).payload == b"%d again" % number
        assert [each.state for each in instances] == ["loaded", "active"] * (MANY // 2)


@contextlib.contextmanager
def linked(instance: mk.Instance, machine: mk.Machine) -> Iterator[mk.Link]:
    with machine.connect(instance.name, capacity="64K", timeout=PATIENCE) as link:
        assert link.request(b"hello", timeout=PATIENCE).payload == b"hello"
        yield link


ENDS: dict[str, tuple[bytes, int, str]] = {
    "returned": (b"return 0", 0, "loaded"),
    "returned 3": (b"return 3", 3, "failed"),
    "exception": (b"raise", 1, "failed"),
    "exit": (b"exit 4", 4, "failed"),
    "signal": (b"signal", 0, "failed"),
}
"""What to say to it, its exit status, and its state then."""


def end(instance: mk.Instance, machine: mk.Machine, how: str) -> None:
    with linked(instance, machine) as link:
        if how == "halt":
            assert instance.halt(timeout=PATIENCE).reason == "halted"
        elif how == "kill":
            assert instance.kill().reason == "killed"
        else:
            said, code, state = ENDS[how]
            link.send(said)
            ended = instance.wait(timeout=PATIENCE)
            assert (ended.reason, ended.code, instance.state) == (how.split(maxsplit=1)[0], code, state)


def test_lives_of_every_kind_and_end_leave_nothing(machine, images):
    """No descriptor, process, mapping or file more than before: here, in the host, and in the zygote if we may look."""
    chance = random.Random(SEED)
    ways = ["halt", "kill", *ENDS]
    lives = [(kind, how) for kind in images for how in ways if (kind, how) != ("native", "exception")]

    def life(kind: str, how: str) -> None:
        instance = machine.create("one", memory="4M")
        instance.load(images[kind])
        instance.boot(until=chance.choice(("active", "ready")))
        end(instance, machine, how)
        machine.delete("one")

    def held() -> tuple[object, ...]:
        return (
            machine._membership.request("census", {}),
            held_by("self"),
            held_by(str(machine.pid)),
            held_by(zygote_with_its_spare(machine)),
        )

    for kind, how in lives:
        life(kind, how)
    before = held()
    for _ in range(LIVES):
        life(*chance.choice(lives))
    assert held() == before
