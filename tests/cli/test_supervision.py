"""The commands about instances that end, or hang, by themselves."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import multikernel as mk
from tests.eventually import PATIENCE, until

Cli = Callable[..., Any]

SERVES = """
def main(kernel):
    print("serving")
    for message in kernel.messages():
        if message.payload == b"die":
            raise LookupError("on purpose")
        message.reply(b"")
"""


@pytest.fixture
def machine(cli, directory) -> Iterator[mk.Machine]:
    """A persistent machine, as a program sees it that has joined."""
    (directory / "serves.py").write_text(SERVES)
    cli("init", "--memory", "256M")
    try:
        with mk.Machine.attach() as joined:
            yield joined
    finally:
        cli("shutdown")


def die(machine: mk.Machine, name: str) -> None:
    with machine.connect(name, timeout=PATIENCE) as link:
        link.send(b"die")
        machine[name].wait(timeout=PATIENCE)


def test_report_is_shown_and_dumped_as_text_and_as_a_document(cli, machine, directory):
    cli("create", "web")
    cli("load", "web", "serves.py")
    cli("start", "web", "--until", "ready")
    assert cli("show", "web", "--panic").err == "web has not died by itself\n"
    assert cli("show", "web", "--panic", "--json").document["panic"] is None
    assert "has no panic report" in cli("dump", "web", "--core", status=4).err
    die(machine, "web")
    shown = cli("show", "web", "--panic").out
    assert shown.startswith("Kernel panic: web (id 1, epoch 1, pid ")
    assert "LookupError: on purpose" in shown
    document = cli("show", "web", "--panic", "--json").document["panic"]
    assert mk.Panic.from_json(document) == machine["web"].panic
    assert cli("dump", "web", "--core").out == machine["web"].panic.text()
    said = cli("dump", "web", "--core", "-o", "web.panic").err
    assert (directory / "web.panic").read_text() == shown
    assert "core file: none: it was created without core=True" in said
    cli("dump", "web", "--core", "--json", "-o", "web.json")
    assert json.loads((directory / "web.json").read_text()) == document
    assert "whose panic report?" in cli("show", "--panic", status=2).err
    assert "--core" in cli("dump", "web", status=2).err


def test_core_file_is_written_beside_the_report(cli, machine, directory):
    cli("create", "web", "--core")
    cli("load", "web", "serves.py")
    cli("start", "web", "--until", "ready")
    os.kill(machine["web"].pid, signal.SIGSEGV)
    machine["web"].wait(timeout=PATIENCE)
    cli("dump", "web", "--core", "-o", "web.panic")
    panic = machine["web"].panic
    if panic.core_file:
        assert (directory / "web.panic.core").read_bytes()[:4] == b"\x7fELF"
    else:
        assert not (directory / "web.panic.core").exists()


def test_crash_image_is_loaded_ahead_and_boots_when_the_instance_dies(cli, machine, directory):
    (directory / "crash.py").write_text("def main(kernel): print('found:', kernel.panic.cause)\n")
    cli("create", "web")
    assert "loaded crash.py into web as its crash image" in cli("load", "--panic", "web", "crash.py").err
    cli("load", "web", "serves.py")
    cli("start", "web", "--until", "ready")
    cli("load", "--panic", "web", "crash.py", "--dry-run")
    die(machine, "web")
    until(lambda: (machine["web"].epoch, machine["web"].pid) == (2, 0))
    assert cli("console", "web").out == "found: LookupError: on purpose\n"


def test_wait_says_how_it_ended_and_times_out_while_it_goes_on(cli, machine):
    cli("create", "web")
    cli("load", "web", "serves.py")
    assert "cannot wait for 'web'" in cli("wait", "web", status=3).err
    cli("start", "web", "--until", "ready")
    assert "goes on after 0.01 s" in cli("wait", "web", "--timeout", "0.01", status=7).err
    die(machine, "web")
    assert cli("wait", "web").out == "exception, status 1\n"
    document = cli("wait", "web", "--json").document
    assert (document["end"]["reason"], document["exit_status"], document["instance"]["state"]) == (
        "exception",
        1,
        "failed",
    )


def test_several_are_started_at_once_and_all_that_can_be(cli, machine):
    cpu = str(min(os.sched_getaffinity(0)))
    for name in ("a", "b", "c", "empty"):
        cli("create", name, "--cpus", cpu, "--shared", "--memory", "1M")
    for name in ("a", "b", "c"):
        cli("load", name, "serves.py")
    assert cli("start", "a", "b", "--dry-run").err == "would boot a, b\n"
    document = cli("boot", "a", "b", "--json").document
    assert [(each["name"], each["state"]) for each in document["instances"]] == [("a", "active"), ("b", "active")]
    assert "booted c, pid" in cli("start", "--all", "--cold").err
    assert "no instance has an image" in cli("start", "--all").err
    assert "cannot boot" in cli("start", "a", "empty", status=1).err
    assert "give no NAME" in cli("start", "--all", "a", status=2).err
    assert "one console" in cli("start", "a", "b", "--console", status=2).err
    assert "give one or the other" in cli("start", "a", "b", "--id", "1", status=2).err


def test_restart_policy_is_shown_and_holds(cli, machine):
    cli("create", "web", "--restart", "on-failure", "--watchdog", "30", "--on-hang", "reboot")
    cli("load", "web", "serves.py")
    cli("start", "web")
    status = machine.proc.snapshot("instances/web/status")
    assert (status["restart"], status["watchdog_ns"], status["on_hang"]) == ("on-failure", 30 * 10**9, "reboot")
    die(machine, "web")
    until(lambda: machine["web"].state == "active")
    # What it died of was not dealt with, so its successor had it, too, as long as the sender had not let it go.
    assert re.search(r"on-failure, [1-4] in a row", cli("show", "web").out)
    assert cli("show", "web", "--json").document["instance"]["restarts"] in range(1, 5)
