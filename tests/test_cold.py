"""A cold boot: an interpreter of its own, that is an instance as any other."""

from __future__ import annotations

import os
import signal
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from tests.eventually import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


IMAGES = {
    "looks": """
        import os, sys
        THERE = "colorsys" in sys.modules
        def main(kernel):
            print(kernel.name, kernel.epoch, kernel.params["a"], bytes(kernel.initrd))
            print(THERE, sorted(os.sched_getaffinity(0)), os.getcwd(), "MULTIKERNEL_MANIFEST" in os.environ)
            status = open("/proc/self/status").read().split("\\n")
            print([line for line in status if line.startswith(("Name", "NoNewPrivs"))])
            print(len(os.listdir("/proc/self/fd")), os.getpgid(0) == os.getpid())
    """,
    "serves": """
        def main(kernel):
            for message in kernel.messages():
                message.reply(b"%d %s" % (kernel.epoch, message.payload))
    """,
    "raises": """
        def main(kernel):
            raise LookupError("on purpose")
    """,
}


@pytest.fixture
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="64M", preload=["colorsys"]) as machine:
        yield machine


@pytest.fixture
def web(machine: mk.Machine, tmp_path: Path, monkeypatch) -> Callable[..., mk.Instance]:
    monkeypatch.chdir(tmp_path)

    def make(what: str, **more: object) -> mk.Instance:
        web = machine.create("web", cpus=[max(os.sched_getaffinity(0))])
        (tmp_path / "image.py").write_text(textwrap.dedent(IMAGES[what]))
        web.load("image.py", **more)
        return web

    return make


def test_cold_instance_is_given_what_a_warm_one_is_but_what_was_preloaded(machine, web, tmp_path):
    (tmp_path / "data").write_bytes(b"initrd")
    it = web("looks", cmdline="a=1", initrd=str(tmp_path / "data"))
    said = []
    for cold in (False, True):
        it.boot(cold=cold)
        it.wait(timeout=PATIENCE)
        said.append(machine.proc["instances/web/console"].splitlines())
    (warm_first, *warm), (cold_first, *cold) = said
    assert (warm_first, cold_first) == ("web 1 1 b'initrd'", "web 2 1 b'initrd'")
    cpu = max(os.sched_getaffinity(0))
    assert warm[0] == f"True [{cpu}] {tmp_path} False"
    assert cold[0] == f"False [{cpu}] {tmp_path} False"
    assert warm[1:] == cold[1:]
    assert warm[1] == "['Name:\\tmk:web', 'NoNewPrivs:\\t1']"
    assert warm[2].endswith(" True")


def test_cold_instance_serves_halts_and_dies_as_any_other(machine, web):
    it = web("serves")
    it.boot(cold=True, until="ready", timeout=PATIENCE)
    with machine.connect("web", timeout=PATIENCE) as link:
        assert link.request(b"hello", timeout=PATIENCE).payload == b"1 hello"
    assert it.halt() == mk.End("halted")
    it.boot(cold=True, until="ready", timeout=PATIENCE)  # so it is in main
    os.kill(it.pid, signal.SIGSEGV)
    assert it.wait(timeout=PATIENCE).signal == signal.SIGSEGV
    assert "in main" in it.panic.threads
    it.boot()
    assert it.epoch == 3


def test_cold_instance_goes_with_its_zygote(machine, web):
    it = web("serves")
    it.boot(cold=True, timeout=PATIENCE)
    pid = it.pid
    machine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_cold_boot_that_fails_says_why(web):
    it = web("raises")
    with pytest.raises(mk.BootError, match="LookupError: on purpose"):
        it.boot(cold=True, until="ready", timeout=PATIENCE)
    assert (it.state, it.panic.reason) == ("failed", "exception")
