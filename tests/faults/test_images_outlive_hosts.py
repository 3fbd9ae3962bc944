"""What a machine has loaded, and whom it trusts, when its host and its zygote were killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import multikernel as mk
from multikernel import image
from multikernel.image import keys
from multikernel.image.signature import Signature
from tests.eventually import PATIENCE

from .test_host_killed import kill, victims

SAYS_ITS_INITRD = """
def main(kernel):
    for message in kernel.messages():
        message.reply(kernel.initrd)
        if message.payload:
            open(message.payload).read()
"""


@pytest.fixture
def key(tmp_path) -> Path:
    (tmp_path / "trusted").mkdir()
    keys.make(tmp_path / "release.key").rename(tmp_path / "trusted/release.pub")
    return tmp_path / "release.key"


@pytest.fixture
def machine(cpus, key) -> Iterator[mk.Machine]:
    trusted = key.parent / "trusted"
    with mk.Machine(cpus=cpus, memory="128M", name="lasting", persist=True, verify=trusted) as machine:
        try:
            yield machine
        finally:
            machine.shutdown()


@pytest.mark.parametrize("which", ["host", "both"])
def test_images_initrds_signatures_and_trust_are_those_of_the_last_host(machine, key, tmp_path, which):
    """Of two instances with one image each has its own initrd, and neither host nor zygote is left to know it."""
    script = tmp_path / "says.py"
    script.write_text(SAYS_ITS_INITRD)
    with image.read(str(script)) as read:
        Path(f"{script}.sig").write_text(Signature.make(read, keys.read_private(key)).text())
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"of {name}")
        machine.create(name, memory="16M", exclusive=False).load(str(script), initrd=tmp_path / name)
        machine[name].boot(until="ready")
    before = [(each.name, each.signature, each.users) for each in machine.view.images()]
    os.mkfifo(tmp_path / "gate")
    with machine.connect("two") as link:
        link.request(str(tmp_path / "gate").encode())  # it looks no more, so that the other one comes first
        kill(*victims(machine, which))
    for name in ("one", "two"):
        if name == "two":
            (tmp_path / "gate").write_text("opened")
        with machine.connect(name, timeout=PATIENCE) as link:
            assert link.request(b"", timeout=PATIENCE).payload == f"of {name}".encode()
    for name in ("one", "two"):  # it has come, and what it has brought is what the next incarnation gets
        machine[name].reboot(timeout=PATIENCE)
        with machine.connect(name, timeout=PATIENCE) as link:
            assert link.request(b"", timeout=PATIENCE).payload == f"of {name}".encode()
    assert [(each.name, each.signature, each.users) for each in machine.view.images()] == before
    assert len(before[0][1]) == 16
    assert machine.view.machine().trusted == 1
    script.write_text(f"{SAYS_ITS_INITRD}#")
    with pytest.raises(mk.ImageError, match="it has changed since it was signed"):
        machine.create("three", memory="16M", exclusive=False).load(str(script))
