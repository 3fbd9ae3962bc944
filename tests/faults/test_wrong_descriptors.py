"""Descriptors that are not what they should be, by the control socket: refused before anybody maps or reads them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import multikernel as mk
from multikernel.errors import from_wire
from multikernel.host import address
from multikernel.host.rundir import RunDir
from multikernel.image import sealed
from multikernel.shm import objects
from tests.eventually import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from multikernel.shm.channel import Channel

ECHO = f"{Path(__file__).parent.parent / 'images' / 'echo.py'}:main"
TEXT = b"def main(kernel): pass\n"


def lane(kind: objects.Kind, *, owner: int, seals: bool) -> int:
    fd = objects.lane_object(kind, "forged", 4096, owner_id=owner)
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0x1F & ~fcntl.F_SEAL_WRITE)
    reopened = objects.reopen(fd)
    os.close(fd)
    return reopened


def sparse() -> int:
    """Ten gigabytes of nothing, sealed: to read it would take seconds and all the memory that there is."""
    fd = sealed.create("sparse")
    os.ftruncate(fd, 10 << 30)
    sealed.add_seals(fd)
    return fd


def short(text: bytes) -> int:
    return sealed.seal(text, "image")


def pipe() -> int:
    """One that stays open and empty: who reads it waits for ever."""
    with tempfile.TemporaryDirectory() as directory:
        os.mkfifo(f"{directory}/pipe")
        return os.open(f"{directory}/pipe", os.O_RDWR)


WRONG: dict[str, Callable[[], int]] = {
    "a directory": lambda: os.open("/", os.O_RDONLY),
    "a device": lambda: os.open("/dev/zero", os.O_RDONLY),
    "a pipe that nobody writes": pipe,
    "a socket": lambda: socket.socket(socket.AF_UNIX).detach(),
    "a path only": lambda: os.open("/", os.O_PATH),
    "a file": lambda: os.open(__file__, os.O_RDONLY),
    "a process": lambda: os.pidfd_open(os.getpid()),
    "memory that can change": lambda: os.memfd_create("unsealed", os.MFD_ALLOW_SEALING),
    "empty memory": lambda: short(b""),
    "sparse memory": sparse,
    "other memory": lambda: short(TEXT + b"#"),
    "a lane of somebody else": lambda: lane("producer", owner=1, seals=True),
}


@pytest.fixture(scope="module")
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="256M") as machine:
        web = machine.create("web", memory="32M", exclusive=False)
        web.load(ECHO)
        web.boot(until="ready")
        machine.create("new", memory="32M", exclusive=False)
        yield machine


@pytest.fixture
def channel(machine: mk.Machine) -> Iterator[Channel]:
    with address.connect(RunDir(machine.name)) as channel:
        yield channel


def refused(channel: Channel, request: dict[str, Any], fds: list[int]) -> mk.MultikernelError:
    """The error that it is answered with, and soon: nobody reads what may have no end, or none yet."""
    begin = time.monotonic()
    channel.send({"id": 1, **request}, fds)
    answer, got = channel.receive(timeout=PATIENCE)
    assert not got
    assert time.monotonic() - begin < PATIENCE / 2
    return from_wire(answer["failed"])


def load(machine: mk.Machine, size: int, initrd: str | None) -> dict[str, Any]:
    image = {
        "kind": "script",
        "name": "a.py:main",
        "entry": "main",
        "module": "a",
        "origin": "/a.py",
        "size": size,
        "digest": hashlib.sha256(TEXT).hexdigest(),
        "path": [],
        "imports": [],
    }
    more = {"cmdline": "", "directory": "/", "signature": None, "panic": False, "dry_run": False}
    which = {"name": "new", "instance": machine["new"].id}
    return {"verb": "load", **which, "image": image, "initrd": initrd, **more}


@pytest.mark.parametrize("what", WRONG)
def test_descriptor_that_is_something_else_is_refused_whatever_it_was_sent_for(machine, channel, what):
    """As an image, an initrd, and as half a link; nothing of it is kept, and nobody waits."""
    before = machine._membership.request("census", {})
    good = short(TEXT)
    wrong = WRONG[what]()
    try:
        error = refused(channel, load(machine, len(TEXT), None), [wrong])
        assert isinstance(error, mk.ImageError) or what == "a path only", error
        if what not in ("empty memory", "other memory"):  # which would do
            error = refused(channel, load(machine, len(TEXT), "file"), [good, wrong])
            assert isinstance(error, mk.ImageError | mk.ResourceError) or what == "a path only", error
        connect = {"verb": "connect", "to": "web", "capacity": 4096, "timeout": 1}
        mine = lane("consumer", owner=512, seals=True)
        error = refused(channel, connect, [wrong, mine])
        assert isinstance(error, mk.CorruptLane), error
        os.close(mine)
    finally:
        os.close(good)
        os.close(wrong)
    assert (machine["new"].state, machine["web"].state) == ("ready", "active")
    assert machine._membership.request("census", {}) == before
    with machine.connect("web") as link:
        assert link.request(b"there?", timeout=PATIENCE).payload == b"there?"


def test_memory_that_is_truncated_later_is_refused_before(machine, channel):
    """Not sealed in its size, it would be a SIGBUS in whoever reads it: the other side is never given it."""
    producer, consumer = (lane(kind, owner=1, seals=False) for kind in ("producer", "consumer"))
    connect = {"verb": "connect", "to": "web", "capacity": 4096, "timeout": 1}
    error = refused(channel, connect, [producer, consumer])
    assert isinstance(error, mk.CorruptLane)
    assert "sealed" in str(error)
    for fd in (producer, consumer):
        os.close(fd)


WATCHES_ITSELF = """
import os, subprocess, sys
def main(kernel):
    for message in kernel.messages():
        child = subprocess.run([sys.executable, "-c", "import os; print(len(os.listdir('/proc/self/fd')))"],
                               close_fds=False, capture_output=True, text=True)
        message.reply(child.stdout.encode())
"""


def test_child_of_an_instance_holds_none_of_its_descriptors(machine, tmp_path):
    """Not even one that is started with close_fds=False: all that arrived is close-on-exec."""
    (tmp_path / "web.py").write_text(WATCHES_ITSELF)
    web = machine.create("watches", memory="32M", exclusive=False)
    web.load(f"{tmp_path}/web.py")
    web.boot(until="ready")
    code = "import os; print(len(os.listdir('/proc/self/fd')))"
    bare = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with machine.connect("watches") as link, machine.connect("watches"):
        assert link.request(b"", timeout=PATIENCE).payload == bare.stdout.encode()
    web.halt(timeout=PATIENCE)
    web.delete()
