"""A machine of pages alone: this process is its host and, where a test does not need more, its instances."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from multikernel.proc.tree import Proc
from multikernel.shm.pages import (
    Console,
    ConsoleView,
    ImageRecord,
    InstanceRecord,
    MachinePage,
    MachineRecord,
    MachineView,
    StatusPage,
    StatusView,
)

if TYPE_CHECKING:
    from multikernel.proc.watched import Watched

IMAGE = ImageRecord(
    id=1,
    kind="script",
    name="server.py:main",
    size=1234,
    digest="ab" * 32,
    users=1,
    signature="cd" * 8,
    imports=("python 3.11.7", "numpy 2.4", "helper -"),
)


class World:
    """Writes what a host and instances write; `proc` is what a client makes of it, from read-only descriptors."""

    def __init__(self, undo: ExitStack) -> None:
        self.undo = undo
        self.page = MachinePage.create("demo")
        undo.callback(self.page.close)
        self.view = MachineView(self.page.fd)
        undo.callback(self.view.close)
        self.held: dict[int, Watched] = {}
        self.proc = Proc(self.view, self.held)
        self.machine = MachineRecord(
            name="demo",
            host_pid=os.getpid(),
            clients=1,
            boot_time_ns=time.monotonic_ns(),
            wall_time_ns=1_700_000_000 * 10**9,
            memory=256 << 20,
            memory_used=96 << 20,
            cpus=(0, 1),
        )
        self.page.write_machine(self.machine)

    def record(self, record: InstanceRecord) -> None:
        """The host says something of an instance."""
        self.page.write_instance(record)

    def watch(self, instance_id: int, epoch: int, status_fd: int, console_fd: int) -> None:
        """The host pushes the pages of an incarnation."""
        status, console = StatusView(status_fd), ConsoleView(console_fd)
        self.undo.callback(status.close)
        self.undo.callback(console.close)
        self.held[instance_id] = (epoch, status, console)

    def incarnate(self, instance_id: int, epoch: int) -> tuple[StatusPage, Console]:
        """An incarnation that lives in this process, and its pages."""
        status, console = StatusPage.create(instance_id, epoch), Console.create(instance_id, epoch)
        self.undo.callback(status.close)
        self.undo.callback(console.finish)
        self.watch(instance_id, epoch, status.fd, console.fd)
        return status, console

    def spawn(self, instance_id: int, epoch: int, loop: str) -> subprocess.Popen[bytes]:
        """An incarnation that is a process of its own: it makes its pages, and then does `loop` for ever."""
        program = f"""
from multikernel.shm.pages import *
status, console = StatusPage.create({instance_id}, {epoch}), Console.create({instance_id}, {epoch})
status.phase("active")
console.write("booted\\n")
socket.send_fds(parent, [b"x"], [status.fd, console.fd])
while True:
    {loop}
"""
        process, fds = self.start(program)
        self.watch(instance_id, epoch, *fds)
        return process

    def start(self, program: str) -> tuple[subprocess.Popen[bytes], list[int]]:
        """A process that sends descriptors through `parent`. It ends with the test, and they are closed then."""
        ours, theirs = socket.socketpair()
        begin = f"import socket\nparent = socket.socket(fileno={theirs.fileno()})\n"
        with ours, theirs:
            process = subprocess.Popen([sys.executable, "-c", begin + program], pass_fds=[theirs.fileno()])
            self.undo.callback(process.wait)
            self.undo.callback(process.kill)
            theirs.close()
            ours.settimeout(30)
            _, fds, _, _ = socket.recv_fds(ours, 1, 2)
        for fd in fds:
            self.undo.callback(os.close, fd)
        assert fds, "it ended before it had sent anything"
        return process, fds


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as undo:
        yield World(undo)


@pytest.fixture
def busy(world: World) -> World:
    """Two instances: `web`, active in its second incarnation, and `my db`, never booted."""
    world.page.write_image(0, IMAGE)
    world.record(
        InstanceRecord(
            1,
            "web",
            "active",
            pid=os.getpid(),
            epoch=2,
            state_time_ns=time.monotonic_ns(),
            memory=64 << 20,
            image=1,
            exclusive=False,
            cpus=(1,),
            cmdline="port=80 \\ x",
            initrd=20 << 10,
        )
    )
    world.record(InstanceRecord(2, "my db", "ready", memory=32 << 20, cpus=(0,), state_time_ns=time.monotonic_ns()))
    status, console = world.incarnate(1, 2)
    for phase in ("pinned", "mapped", "imported", "active", "ready"):
        status.phase(phase)
    status.link(2, 65536)
    status.link(512, 4096)
    status.ipi(5, 3)
    status.ipi(63, 4)
    console.write("hello\nworld")
    return world
