"""A native instance of a persistent machine, when its host, its zygote or both are killed: as a Python one."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from multikernel.host import address
from multikernel.host.rundir import RunDir
from multikernel.kernel.protocol import PROTOCOL
from tests.eventually import PATIENCE
from tests.faults.killing import is_told, kill, victims, zygote
from tests.images.relay import FORMAT
from tests.succession import Stream, make

from .build import IMAGES, ROOT, build

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def peer(tmp_path_factory) -> Path:
    return build(IMAGES / "peer.c", tmp_path_factory.mktemp("native"))


@pytest.fixture
def machine(cpus) -> Iterator[mk.Machine]:
    with mk.Machine(cpus=cpus, memory="256M", name="lasting", persist=True) as machine:
        try:
            yield machine
        finally:
            machine.shutdown()


@pytest.fixture
def web(machine, peer) -> mk.Instance:
    web = machine.create("web", memory="32M", exclusive=False)
    web.load(str(peer))
    web.boot(until="ready")
    return web


def ask(link: mk.Link, text: str) -> str:
    return link.request(text.encode(), timeout=PATIENCE).payload.decode()


@pytest.mark.parametrize("which", ["host", "zygote", "both"])
def test_native_instance_goes_on_and_is_supervised_by_whoever_takes_over(machine, web, which):
    """It is the very process, its links do not notice, and new ones are made with the next host."""
    was = web.pid, web.epoch
    with machine.connect("web") as link:
        kill(*victims(machine, which))
        assert ask(link, "param nothing") == "(none)"
        with machine.connect("web", timeout=PATIENCE) as another:
            assert ask(another, "param nothing") == "(none)"
        assert (web.pid, web.epoch, web.state) == (*was, "active")
    assert web.halt(timeout=PATIENCE).reason == "halted"
    web.boot()  # if both were killed: the image that it has brought
    assert (web.state, web.epoch) == ("active", 2)


def test_native_instance_that_is_killed_after_all_is_told_and_boots_again(machine, web):
    """Host and zygote are gone, so its image is the one that it has brought."""
    kill(*victims(machine, "both"))
    machine.connect("web", timeout=PATIENCE).close()
    os.kill(web.pid, signal.SIGSEGV)
    end = web.wait(timeout=PATIENCE)
    assert (end.reason, end.signal) == ("signal", signal.SIGSEGV) or (end.reason == "unknown" and not is_told("both"))
    assert web.state == "failed"
    web.boot()
    assert (web.state, web.epoch) == ("active", 2)


def test_native_instance_waits_for_the_successor_of_a_peer_that_died_with_the_host(machine, tmp_path_factory):
    """However long the next host takes. It waits in the middle of a send, where nothing wakes it for its host."""
    make(machine, "last", restart=mk.Restart("always", delay=0.0))
    make(machine, "first", "last", spec=str(build(IMAGES / "relay.c", tmp_path_factory.mktemp("relay"))))
    with machine.connect("first", capacity="64K") as link:
        stream = Stream(link)
        stream.step()
        stream.finish()
        kill(zygote(machine))  # the next one is in a session of its own: the end of the host does not make it go on
        stopped, pids = zygote(machine), (machine["last"].pid, machine.pid)
        os.kill(stopped, signal.SIGSTOP)
        os.kill(pids[0], signal.SIGSTOP)
        while link.try_send(FORMAT.pack(stream.sent, 0)):  # until the lanes on the way are full
            stream.sent += 1
        try:
            kill(*pids)
            with pytest.raises(mk.Timeout):
                address.connect(RunDir(machine.name), timeout=1.5)
        finally:
            os.kill(stopped, signal.SIGCONT)
        stream.finish()
    assert (machine["first"].epoch, machine["last"].epoch) == (1, 2)


def test_both_runtimes_speak_one_version_of_the_protocol():
    """The number stands in two languages."""
    header = (ROOT / "csrc/kernel.h").read_text()
    assert re.findall(r"#define MK_PROTOCOL (\d+)", header) == [str(PROTOCOL)]
