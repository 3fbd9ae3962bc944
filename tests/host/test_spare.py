"""The child that a zygote has forked ahead: it becomes the next instance, and nothing depends on its being there."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from tests.eventually import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Iterator


SERVES = "def main(kernel):\n    for message in kernel.messages(): message.reply(message.payload)\n"


@pytest.fixture
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="64M") as machine:
        yield machine


@pytest.fixture
def web(machine: mk.Machine, tmp_path: Path) -> mk.Instance:
    return loaded(machine, tmp_path, "web")


def loaded(machine: mk.Machine, tmp_path: Path, name: str) -> mk.Instance:
    (tmp_path / "serves.py").write_text(SERVES)
    instance = machine.create(name, cpus=[min(os.sched_getaffinity(0))], memory="1M", exclusive=False)
    instance.load(str(tmp_path / "serves.py"))
    return instance


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip()
    except OSError:  # it has ended
        return ""


def spare_of(machine: mk.Machine) -> int:
    """The pid of the zygote's spare, once there is one."""
    [zygote] = children(machine.pid)
    spares: list[int] = []

    def there_is_one() -> bool:
        spares[:] = [pid for pid in children(zygote) if comm(pid) == "mk-spare"]
        return spares != []

    until(there_is_one)
    return spares[0]


def serves(machine: mk.Machine, name: str) -> bool:
    with machine.connect(name, capacity="64K", timeout=PATIENCE) as link:
        return link.request(b"hello", timeout=PATIENCE).payload == b"hello"


def assert_ends(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    ended = poll.poll(PATIENCE * 1000)
    os.close(pidfd)
    assert ended


def test_spare_becomes_the_next_instance_and_another_one_is_made(machine, web):
    for _ in range(3):
        spare = spare_of(machine)
        web.boot()
        assert web.pid == spare
        assert serves(machine, "web")
        assert spare_of(machine) != spare
        assert web.halt().reason == "halted"


def test_spare_that_was_killed_is_missed_by_nobody(machine, web):
    for _ in range(3):
        spare = spare_of(machine)
        pidfd = os.pidfd_open(spare)
        os.kill(spare, signal.SIGKILL)
        assert_ends(pidfd)
        web.boot()  # the zygote may know of it, or not; or have another one
        assert serves(machine, "web")
        web.kill()


def test_boots_of_several_do_not_wait_for_spares(machine, tmp_path):
    made = [loaded(machine, tmp_path, f"web{i}") for i in range(4)]
    threads = [threading.Thread(target=each.boot) for each in made]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert all(serves(machine, each.name) for each in made)


def test_spare_holds_nothing_of_the_zygote_s_nor_of_its_rehearsal(machine):
    spare = spare_of(machine)
    until(lambda: len(held_beyond_the_usual(spare)) == 1)  # it rehearses first
    assert held_beyond_the_usual(spare)[0].startswith("socket:")
    assert "/memfd:" not in Path(f"/proc/{spare}/maps").read_text()
    assert os.listdir(f"/proc/{spare}/task") == [str(spare)]


def held_beyond_the_usual(pid: int) -> list[str]:
    held = []
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # it closes them meanwhile
                held += [os.readlink(f"/proc/{pid}/fd/{fd}")] if int(fd) > 2 else []
    except PermissionError:
        pytest.skip("this user may not look into a process that is closed to others")
    return held


def test_spare_ends_with_a_zygote_that_is_killed(machine):
    pidfd = os.pidfd_open(spare_of(machine))
    [zygote] = children(machine.pid)
    os.kill(zygote, signal.SIGKILL)
    assert_ends(pidfd)
