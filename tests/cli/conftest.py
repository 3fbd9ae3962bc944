"""The command line, as tests run it: `program` as a shell does, in a process of its own; `cli` the same, but here."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from multikernel.cli import main
from tests.eventually import PATIENCE

COMMAND = (sys.executable, "-m", "multikernel")
Cli = Callable[..., Any]


@dataclass(frozen=True)
class Ran:
    """What became of one command."""

    arguments: tuple[str, ...]
    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    def expect(self, status: int) -> Ran:
        assert self.status == status, self
        return self


@pytest.fixture
def directory(tmp_path, monkeypatch) -> Path:
    """An empty directory, in which the commands are typed."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(directory, capsys, monkeypatch) -> Callable[..., Ran]:
    """Run `multikernel ARGUMENTS`, which is to end with `status`, in this process: a process more costs 0.1 s."""

    def run(*arguments: str, status: int = 0) -> Ran:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", list(sys.path))  # load looks for modules where it is typed
            ended = main(arguments)
        said = capsys.readouterr()
        return Ran(arguments, ended, said.out, said.err).expect(status)

    return run


@pytest.fixture
def program(directory) -> Callable[..., Ran]:
    """Run `multikernel ARGUMENTS`, which is to end with `status`, in a process of its own, as a shell does."""

    def run(*arguments: str, status: int = 0, stdin: str = "", **environment: str) -> Ran:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=directory,
            env={**os.environ, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return Ran(arguments, done.returncode, done.stdout, done.stderr).expect(status)

    return run


ECHO = """
def main(kernel):
    print(f"{kernel.name} is up: {kernel.cmdline}")
    for message in kernel.messages():
        message.reply(bytes(message.payload).upper())
    print("asked to halt")
    return 0
"""

CHATTY = """
import time
def main(kernel):
    for number in range(100):
        print("line")
        time.sleep(0.01)
    for message in kernel.messages():
        pass
"""

DEAF = """
import time
def main(kernel):
    print("up")
    while True:
        time.sleep(0.05)
"""


@pytest.fixture
def machine(cli, cpus, directory) -> Iterator[str]:
    """A persistent machine called `default`, with an image in the directory of the commands."""
    (directory / "echo.py").write_text(ECHO)
    (directory / "deaf.py").write_text(DEAF)
    cli("init", "--cpus", ",".join(map(str, cpus)), "--memory", "256M")
    try:
        yield "default"
    finally:
        cli("shutdown")


@pytest.fixture
def web(cli, machine) -> str:
    """An active instance that answers in capitals."""
    cli("create", "web")
    cli("load", "web", "echo.py", "-c", "loud=1")
    cli("start", "web", "--until", "ready")
    return "web"


@pytest.fixture
def shell(directory) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command that stays; ended with the test, if it has not by itself."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints, within the time that anything may take."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
    assert ready, "it has printed nothing"
    return process.stdout.readline()


def state(cli: Cli, name: str) -> str:
    return cli("show", name, "--json").document["instance"]["state"]
