"""`multikernel exec NAME -- COMMAND`: on the instance's cpus, with the caller's terminal, no longer than it lives."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import multikernel as mk
from tests.eventually import PATIENCE

Cli = Callable[..., Any]
COMMAND = [sys.executable, "-m", "multikernel"]

SERVES = "def main(kernel):\n    for message in kernel.messages(): pass\n"
ASK = "import os; print(sorted(os.sched_getaffinity(0)), *(os.environ.get(name) for name in {names!r}))"


@pytest.fixture
def web(directory, monkeypatch) -> Iterator[mk.Instance]:
    (directory / "serves.py").write_text(SERVES)
    with mk.Machine(memory="64M", name="commands") as machine:
        monkeypatch.setenv("MULTIKERNEL_MACHINE", "commands")
        web = machine.create("web", cpus=machine.view.machine().cpus[:1], memory="32M")
        web.load("serves.py:main")
        web.boot(until="ready")
        yield web


@pytest.fixture
def shell(directory, web) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `multikernel exec web -- COMMAND`; ended with the test, if it has not by itself."""
    with contextlib.ExitStack() as undo:

        def start(*command: str, **options: Any) -> subprocess.Popen[str]:
            given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
            process = subprocess.Popen([*COMMAND, "exec", "web", "--", *command], cwd=directory, text=True, **given)
            undo.enter_context(process)
            undo.callback(process.kill)
            return process

        yield start


def test_a_command_runs_on_the_instances_cpus_and_knows_where(program: Cli, web):
    names = ["MULTIKERNEL_MACHINE", "MULTIKERNEL_INSTANCE", "OMP_NUM_THREADS", "MINE"]
    ran = program("exec", "web", "-e", "MINE=1=2", "--", sys.executable, "-c", ASK.format(names=names))
    assert ran.out == f"{list(web.cpus)} commands web 1 1=2\n"
    assert ran.err == ""


def test_stdio_directory_and_status_are_passed_on(program: Cli, web, directory):
    (directory / "below").mkdir()
    ran = program(
        "exec", "-it", "-w", "below", "--id", "1", "--", "sh", "-c", "cat; pwd >&2; exit 7", stdin="in", status=7
    )
    assert (ran.out, Path(ran.err.strip()).name) == ("in", "below")
    assert program("exec", "web", "--", "sh", "-c", "kill -TERM $$", status=128 + 15).err == ""


def test_a_command_that_is_not_there_is_127_and_one_that_cannot_be_run_126(program: Cli, web, directory):
    (directory / "data").write_text("")
    assert program("exec", "web", "--", "no-such-command", status=127).err == (
        "multikernel exec: no-such-command: No such file or directory\n"
    )
    assert "./data: Permission denied" in program("exec", "web", "--", "./data", status=126).err


def test_what_is_no_active_instance_is_refused(cli: Cli, web):
    assert "not there" not in cli("exec", "web", "--dry-run", "--", "ls").err
    assert "would run ls on cpu" in cli("exec", "web", "--dry-run", "--", "ls").err
    web.halt()
    assert "cannot run a command in 'web': it is loaded" in cli("exec", "web", "--", "ls", status=3).err
    assert "for a boot" in cli("exec", "web", "--json", "--", "ls", status=2).out
    assert "no assignment" in cli("exec", "web", "-e", "X", "--", "ls", status=2).err


def test_the_command_is_killed_when_the_instance_ends(shell, web):
    """And whatever it has started: the cores are somebody else's by then."""
    command = shell("sh", "-c", "sleep 1000 & echo $!; wait")
    sleeper = int(command.stdout.readline())
    pidfd = os.pidfd_open(sleeper)
    try:
        web.halt()
        _, err = command.communicate(timeout=PATIENCE)
        assert command.returncode == 128 + signal.SIGKILL
        assert err == "web has ended, and sh was killed with it\n"
        assert select.select([pidfd], [], [], PATIENCE)[0]
    finally:
        os.close(pidfd)


def test_what_the_command_leaves_behind_ends_with_it(program: Cli, web):
    sleeper = int(program("exec", "web", "--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!").out)
    with pytest.raises(ProcessLookupError):
        os.kill(sleeper, 0)


def test_the_command_is_killed_when_its_caller_is(shell, web):
    command = shell("sh", "-c", "echo $$; exec sleep 1000")
    pidfd = os.pidfd_open(int(command.stdout.readline()))
    try:
        command.kill()
        assert select.select([pidfd], [], [], PATIENCE)[0]
    finally:
        os.close(pidfd)


def test_signals_are_passed_on(shell, web):
    command = shell(
        "sh", "-c", "trap 'echo term' TERM; trap 'echo usr1; exit 3' USR1; echo up; while :; do sleep 0.02; done"
    )
    assert command.stdout.readline() == "up\n"
    command.send_signal(signal.SIGTERM)
    assert command.stdout.readline() == "term\n"
    command.send_signal(signal.SIGUSR1)
    assert command.communicate(timeout=PATIENCE)[0] == "usr1\n"
    assert command.returncode == 3


def test_a_ctrl_c_in_a_terminal_reaches_the_command_once(web, directory):
    """The terminal gives it to the whole foreground group; passing it on as well would make two of it."""
    # A signal ends the read that it finds the shell in, if it finds it in one.
    script = "trap 'echo got' INT; echo up; until read line; do :; done; echo \"$line\""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(directory)
        os.execv(sys.executable, [*COMMAND, "exec", "web", "--", "sh", "-c", script])
    try:
        assert read_until(terminal, b"up\r\n")
        os.write(terminal, b"\x03")
        assert read_until(terminal, b"got\r\n")
        os.write(terminal, b"hello\n")
        said = read_until(terminal, b"hello\r\nhello\r\n")
        assert said.count(b"got") == 0
        assert has_ended(pid)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)


def test_signals_that_came_when_the_command_had_ended_already_do_not_change_its_status(shell, web):
    """As when it deals with a Ctrl-C and ends before we have looked."""
    command = shell("sh", "-c", "echo $$; kill -STOP $PPID; kill -INT $PPID; kill -USR1 $PPID; exit 3")
    assert has_ended(int(command.stdout.readline()))
    command.send_signal(signal.SIGCONT)
    command.communicate(timeout=PATIENCE)
    assert command.returncode == 3


def has_ended(pid: int) -> bool:
    """Wait until it has; it need not be reaped."""
    pidfd = os.pidfd_open(pid)
    try:
        return select.select([pidfd], [], [], PATIENCE)[0] != []
    finally:
        os.close(pidfd)


def read_until(terminal: int, end: bytes) -> bytes:
    """What comes, up to `end`, which must come."""
    said = b""
    while end not in said:
        assert select.select([terminal], [], [], PATIENCE)[0], said
        said += os.read(terminal, 1000)
    return said
