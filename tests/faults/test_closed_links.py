"""Links that an instance closes itself, while its peers stay: nobody holds anything of them any more."""

from __future__ import annotations

import os

import pytest

import multikernel as mk
from tests.eventually import PATIENCE, until

LINKS = 5

CLOSES = """
def main(kernel):
    for message in kernel.messages():
        message.reply(b"closed")
        message.link.close()
"""


def held(machine: mk.Machine, web: mk.Instance) -> list[int]:
    """How many descriptors the host has, and the instance, if this user may look into it."""
    of_host = machine._membership.request("census", {})["descriptors"]
    try:
        return [of_host, len(os.listdir(f"/proc/{web.pid}/fd"))]
    except PermissionError:
        return [of_host]


def test_host_lets_go_of_links_that_an_instance_closes(tmp_path):
    """Also of the lanes at which a watchdog and a panic report look."""
    (tmp_path / "web.py").write_text(CLOSES)
    with mk.Machine(memory="64M") as machine:
        web = machine.create("web", memory="32M", exclusive=False)
        web.load(f"{tmp_path}/web.py")
        web.boot(until="ready")
        before = held(machine, web)
        for _ in range(LINKS):
            with machine.connect("web", capacity="64K") as link:
                assert link.request(b"", timeout=PATIENCE).payload == b"closed"
                with pytest.raises(mk.Closed):
                    link.recv(timeout=PATIENCE)
        until(lambda: held(machine, web) == before)
