"""More is kept for the next host than a zygote that starts can be sent at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from tests.eventually import PATIENCE
from tests.faults.killing import kill, victims, zygote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.stress, pytest.mark.slow]

INSTANCES, MEMORIES = 24, 64
REMEMBERS = f"""
def main(kernel):
    memories = [kernel.memory(f"number {{i}}", 4096) for i in range({MEMORIES})]
    for message in kernel.messages():
        for memory in memories:
            memory[0] += 1
        message.reply(bytes(memory[0] for memory in memories))
"""


@pytest.fixture
def machine(cpus: tuple[int, ...]) -> Iterator[mk.Machine]:
    with mk.Machine(cpus=cpus, memory="512M", name="lasting", persist=True) as machine:
        try:
            yield machine
        finally:
            machine.shutdown(timeout=0)


def test_all_that_is_kept_comes_to_the_next_zygote_though_the_host_is_killed_then(machine, tmp_path: Path):
    (tmp_path / "remembers.py").write_text(REMEMBERS)
    instances = []
    for number in range(INSTANCES):
        instance = machine.create(f"i{number}", memory="16M", exclusive=False, restart=mk.Restart("always", delay=0.0))
        instance.load(f"{tmp_path / 'remembers.py'}:main")
        instance.boot()
        instances.append(instance)

    def asked(instances: list[mk.Instance]) -> set[bytes]:
        answers = set()
        for instance in instances:
            with machine.connect(instance.name, capacity="64K", timeout=PATIENCE) as link:
                answers.add(link.request(b"", timeout=PATIENCE).payload)
        return answers

    assert asked(instances) == {b"\1" * MEMORIES}
    kill(*victims(machine, "zygote"))
    zygote(machine)  # of the next one
    instances[0].reboot(timeout=2 * PATIENCE)  # so it is up
    kill(machine.pid)
    for instance in instances[1], instances[-1]:
        instance.reboot(timeout=2 * PATIENCE)
    assert asked([instances[0], instances[1], instances[-1]]) == {b"\2" * MEMORIES}
