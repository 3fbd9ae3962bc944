"""`multikernel run` and what it passes on: consoles, signals, ends, its own status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

import multikernel as mk
from multikernel.cli import describe
from multikernel.client import membership
from tests.eventually import PATIENCE

from .conftest import CHATTY, COMMAND, DEAF, ECHO, read_line, state


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("return 0", 0),
        ("return 3", 3),
        ("import sys; sys.exit(4)", 4),
        ("raise RuntimeError('on purpose')", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("import os, signal; os.kill(os.getpid(), signal.SIGUSR1)", 128 + signal.SIGUSR1),
    ],
    ids=lambda value: value.split(";")[0] if isinstance(value, str) else str(value),
)
def test_run_passes_on_the_instances_own_status(body, status, cli, directory):
    (directory / "image.py").write_text(f"def main(kernel):\n    print('it ran', flush=True)\n    {body}\n")
    ran = cli("run", "image.py", status=status)
    assert ran.out.startswith("it ran\n")
    assert ("on purpose" in ran.out) == ("on purpose" in body)


def test_run_needs_no_machine_and_leaves_none(cli, directory):
    (directory / "image.py").write_text("def main(kernel):\n    print(kernel.name, kernel.cmdline)\n")
    assert cli("run", "image.py", "--cmdline", "a b").out == "image a b\n"
    assert cli("run", "other", "image.py").out == "other \n"
    cli("show", status=3)


def test_run_as_a_document_has_the_console_on_stderr(cli, directory):
    (directory / "image.py").write_text("def main(kernel):\n    print('talk')\n    return 3\n")
    ran = cli("run", "image.py", "--json", status=3)
    assert ran.document["exit_status"] == 3
    assert ran.document["end"]["code"] == 3
    assert "talk" in ran.err


def test_run_of_an_image_that_is_refused_is_6(cli):
    cli("run", "nowhere.py", status=6)
    cli("show", status=3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_an_interrupted_run_halts_the_instance(number, cli, shell, directory):
    (directory / "echo.py").write_text(ECHO)
    running = shell("run", "web", "echo.py", "--cmdline", "now")
    assert read_line(running) == "web is up: now\n"
    assert state(cli, "web") == "active"
    running.send_signal(number)
    out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 128 + number
    assert out == "asked to halt\n"
    assert "Traceback" not in err
    cli("show", status=3)


def test_an_interrupted_run_ends_one_that_does_not_listen_also_when_told_twice(cli, shell, directory):
    (directory / "deaf.py").write_text(DEAF)
    running = shell("run", "deaf.py")
    assert read_line(running) == "up\n"
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None
    assert "again" in running.stderr.readline()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130
    assert "Traceback" not in err
    cli("show", status=3)


def test_run_joins_a_machine_that_runs(cli, machine, shell):
    running = shell("run", "web", "echo.py")
    read_line(running)
    assert cli("show", "--json").document["instances"][0]["name"] == "web"
    cli("halt", "web")
    running.communicate(timeout=PATIENCE)
    assert running.returncode == 0
    assert state(cli, "web") == "loaded"


def test_a_run_goes_on_when_the_host_is_killed(cli, machine, shell):
    running = shell("run", "web", "echo.py")
    read_line(running)
    killed = cli("show", "--json").document["host"]["pid"]
    os.kill(killed, signal.SIGKILL)
    cli("halt", "web")
    running.communicate(timeout=PATIENCE)
    assert running.returncode == 0
    assert cli("show", "--json").document["host"]["pid"] != killed


def test_a_run_whose_machine_is_gone_says_so(cli, machine, program, shell):
    running = shell("run", "web", "deaf.py")
    read_line(running)
    with mk.Machine.attach(machine) as joined:
        census = joined._membership.request("census", {})
        everything = [census["zygote"], joined.pid, joined["web"].pid]
    # So that none is there to start another, or to be taken over. The zygote goes first: the system continues a stopped
    # child whose parent is killed.
    for pid in everything:
        os.kill(pid, signal.SIGSTOP)
    for pid in everything:
        os.kill(pid, signal.SIGKILL)
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 1
    assert err.count("\n") == 1
    assert machine in err
    program("init")  # for the fixture to end


def test_run_can_leave_it_running_or_nothing_at_all(cli, machine, directory):
    cli("run", "web", "echo.py", "--detach")
    assert state(cli, "web") == "active"
    cli("kill", "web")
    cli("delete", "web", "--force")
    (directory / "image.py").write_text("def main(kernel):\n    return 0\n")
    cli("run", "once", "image.py", "--rm")
    cli("run", "once", "image.py", "--rm")
    assert cli("show", "--json").document["instances"] == []


def test_a_run_that_nobody_reads_any_more_ends_the_instance(cli, machine, directory):
    """As in `multikernel run web image.py 2>&1 | head -n 1`, on a machine that stays."""
    (directory / "chatty.py").write_text(CHATTY)
    reads, writes = os.pipe()
    running = subprocess.Popen([*COMMAND, "run", "web", "chatty.py"], cwd=directory, stdout=writes, stderr=writes)
    os.close(writes)
    assert os.read(reads, 4) == b"line"
    os.close(reads)
    assert running.wait(timeout=PATIENCE) == 141
    assert state(cli, "web") == "loaded"


def test_a_run_that_is_interrupted_removes_what_it_was_to_remove(cli, machine, shell):
    running = shell("run", "web", "deaf.py", "--rm")
    read_line(running)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=PATIENCE)
    assert running.returncode == 130
    assert cli("show", "--json").document["instances"] == []


def test_who_has_booted_what_has_ended_by_now_is_told_how(cli, machine, directory):
    (directory / "dies.py").write_text(
        "import os\ndef main(kernel):\n    kernel.wait(0)\n    os.kill(os.getpid(), 9)\n"
    )
    cli("create", "web")
    cli("load", "web", "dies.py")
    cli("start", "web", "--until", "ready")
    with mk.Machine.attach(machine) as joined:
        assert describe.now(joined["web"]) == f"pid {joined['web'].pid}"
        with joined["web"].attach() as typed:
            typed.write(b"\n")
        joined["web"].wait(timeout=PATIENCE)
        assert describe.now(joined["web"]) == "and it has ended by now: signal, SIGKILL"


def test_that_the_host_may_run_where_instances_do_is_said_once_a_cpu(cli, machine, cpus):
    """There may be hundreds of them."""
    for number in range(3):
        cli("create", f"web{number}", "--cpus", str(cpus[0]), "--shared", "--memory", "1M")
    with mk.Machine.attach(machine) as joined:
        os.sched_setaffinity(joined.pid, {cpus[0]})
    assert cli("show").err == f"note: the host may run on cpu {cpus[0]}, which 'web0' and 2 more have\n"


def test_a_run_that_cannot_start_leaves_no_instance(cli, machine, directory):
    (directory / "broken.py").write_text("raise RuntimeError\n")
    cli("run", "web", "nowhere.py", status=6)
    cli("run", "web", "broken.py", status=1)
    assert cli("show", "--json").document["instances"] == []


def test_a_machine_that_answers_no_more_is_7(cli, machine, monkeypatch):
    """Whoever joins needs the host; a stopped one is not waited for without limit."""
    monkeypatch.setattr(membership, "_JOINS_WITHIN", 0.5)  # of ten seconds
    pid = cli("show", "--json").document["host"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        error = cli("show", "--json", status=7).document["error"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert error["type"] == "Timeout"
    assert f"the host of machine {machine!r} does not answer: it is stopped, or hangs" in error["message"]


def test_a_broken_pipe_of_a_run_is_quiet_and_ends_it(cli, directory):
    (directory / "chatty.py").write_text(CHATTY)
    running = subprocess.Popen(
        [*COMMAND, "run", "chatty.py"], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert read_line(running) == "line\n"
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    assert running.wait(timeout=PATIENCE) == 141
    assert "Traceback" not in running.stderr.read()
    running.stderr.close()
    cli("show", status=3)


def test_the_document_of_an_error_has_the_fields_of_the_error(cli, machine):
    cli("create", "web", "--id", "3")
    error = cli("halt", "web", "--json", status=3).document["error"]
    assert error["type"] == "StateError"
    assert error["fields"]["state"] == "ready"
    assert error["fields"]["legal"] == ["load", "delete", "load --panic"]
    assert json.dumps(error)


def test_the_run_directory_is_the_only_place_where_a_machine_shows(cli, machine):
    run = Path(os.environ["MULTIKERNEL_RUN"])
    assert [entry.name for entry in run.iterdir()] == [machine]
