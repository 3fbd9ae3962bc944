"""A host is killed, and its zygote while that tells the next host what there is: the test is that zygote."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from multikernel.host import interpreter
from multikernel.host.rundir import RunDir
from multikernel.shm.channel import Channel
from tests.eventually import PATIENCE

from .killing import kill, victims

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ECHO = str(Path(__file__).parent.parent / "images" / "echo.py")

Ended = list[list[object]]


@pytest.fixture
def heirs() -> Iterator[list[int]]:
    """Pids of hosts that are children of this process, and end with the machine. Each moves it as it does a zygote."""
    heirs: list[int] = []
    allowed = os.sched_getaffinity(0)
    yield heirs
    for pid in heirs:
        os.waitpid(pid, 0)
    os.sched_setaffinity(0, allowed)


@pytest.fixture
def machine(heirs: list[int], cpus: tuple[int, ...]) -> Iterator[mk.Machine]:
    with mk.Machine(cpus=cpus, memory="512M", name="lasting", persist=True) as machine:
        try:
            yield machine
        finally:
            machine.shutdown()


@pytest.fixture
def tell(machine: mk.Machine, heirs: list[int]) -> Callable[..., None]:
    """Kill host and zygote, start the next host as that zygote would, say some of what it says, and be gone."""

    def tell(*, living: Ended = [], ended: Ended = [], up: bool) -> None:  # noqa: B006 - neither is changed
        kill(*victims(machine, "both"))
        rundir = RunDir("lasting")
        rundir.take_over()
        ours, theirs = Channel.pair()
        with ours, theirs:
            heirs.append(interpreter.start("heir", [theirs.fileno(), rundir.lock], 2))
            ours.send({"push": "inherit", "living": living, "ended": ended})
            if up:
                ours.send({"push": "up"})
                machine._membership.request("census", {})  # it has taken over by then
        rundir.close()

    return tell


def boot(machine: mk.Machine, name: str) -> mk.Instance:
    instance = machine.create(name, memory="32M", exclusive=False)
    instance.load(f"{ECHO}:main")
    instance.boot(until="ready")
    return instance


@pytest.mark.parametrize("up", [False, True], ids=["in the middle", "after all"])
def test_end_of_an_instance_is_seen_though_its_zygote_is_gone(machine, tell, up):
    """The zygote has said that the instance is its child, and would be the one to say how it ends."""
    web = boot(machine, "web")
    pid, epoch = web.pid, web.epoch
    tell(living=[[web.id, epoch, pid]], up=up)
    with machine.connect("web", timeout=PATIENCE) as link:
        assert link.request(b"x", timeout=PATIENCE).payload == b"x"
    assert (web.pid, web.epoch, web.state) == (pid, epoch, "active")
    assert web.halt(timeout=PATIENCE).reason in ("halted", "unknown")
    assert web.state == "loaded"


def test_epoch_that_a_killed_host_gave_to_a_boot_is_not_given_again(machine, tell):
    """The host was killed before it had written down that it boots: what the zygote says of that is not of the next."""
    boot(machine, "other")  # brings the image back, and keeps the machine
    web = boot(machine, "web")
    web.halt(timeout=PATIENCE)
    tell(ended=[[web.id, 2, 0, int(signal.SIGKILL), False]], up=True)
    web.load(f"{ECHO}:main")
    web.boot(until="ready")
    assert (web.epoch, web.state) == (3, "active")
