"""The native examples are built by their Makefile, boot, and do what their first lines say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from tests.eventually import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/native"
COLLECT = """
def main(kernel):
    collected = []
    for message in kernel.messages():
        if message.payload == b"what have you?":
            message.reply(b"|".join(collected))
        else:
            collected.append(message.payload)
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("examples")
    for source in EXAMPLES.iterdir():
        if source.is_file():
            shutil.copy(source, directory)
    flags = ["CFLAGS=-O1 -Werror", "CXXFLAGS=-O1 -Werror"]
    command = ["make", "-j2", f"PYTHON={sys.executable}", *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / "build"


@pytest.fixture
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(cpus=sorted(os.sched_getaffinity(0))[:2], memory="256M") as machine:
        yield machine


def boot(machine: mk.Machine, name: str, image: str, cmdline: str = "") -> mk.Instance:
    instance = machine.create(name, cpus=[min(os.sched_getaffinity(0))], memory="16M", exclusive=False)
    instance.load(image, cmdline=cmdline)
    instance.boot(timeout=PATIENCE)
    return instance


def test_every_source_is_built(programs):
    built = {path.name.replace("++", "") for path in programs.iterdir()}
    assert built == {path.stem for path in EXAMPLES.glob("*.c*")}


def test_echo_answers_messages_and_interrupts(machine, programs):
    web = boot(machine, "web", str(programs / "echo"))
    with machine.connect("web", capacity="64K") as link:
        seen = []
        link.on_ipi(7, lambda vector, count: seen.append((vector, count)))
        assert link.request(b"hello", timeout=PATIENCE).payload == b"hello"
        link.ipi(7)
        assert link.request(b"again", timeout=PATIENCE).payload == b"again"
        assert seen == [(7, 1)]
    web.halt(timeout=PATIENCE)
    assert machine.proc["instances/web/console"] == f"web is instance {web.id} of {machine.name}\nvector 7, 1 times\n"


def test_echo_in_cpp_counts(machine, programs):
    web = boot(machine, "web", str(programs / "echo++"))
    with machine.connect("web", capacity="64K") as link:
        link.ipi(5)
        link.send("gr\u00fc\u00dfe".encode())
        assert link.recv(timeout=PATIENCE).payload.decode() == "gr\u00fc\u00dfe"
        assert link.request(b"count", timeout=PATIENCE).payload == b"2 messages, 1 interrupts"
    assert web.halt(timeout=PATIENCE).code == 0


def test_filter_passes_on_what_matches(machine, programs, tmp_path):
    collector = tmp_path / "collector.py"
    collector.write_text(COLLECT)
    boot(machine, "log", f"{collector}:main")
    boot(machine, "filter", str(programs / "filter"), "match=error to=log")
    with machine.connect("filter", capacity="64K") as link:
        for text in (b"all is well", b"an error", b"errors", b"err", b"", b"one more error!"):
            link.send(text, timeout=PATIENCE)
        assert link.request(b"", timeout=PATIENCE).payload == b"3 of 6 passed"
    with machine.connect("log", capacity="64K") as link:
        assert link.request(b"what have you?", timeout=PATIENCE).payload == b"an error|errors|one more error!"


def test_filter_says_what_it_needs(machine, programs):
    assert boot(machine, "filter", str(programs / "filter")).wait(timeout=PATIENCE).code == 2
    assert "what to match, and whom to pass it to" in machine.proc["instances/filter/console"]
