"""The command line, as tests run it: `program` as a shell does, in a process of its own; `cli` the same, but here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from multikernel.cli import main
from tests.eventually import PATIENCE

COMMAND = (sys.executable, "-m", "multikernel")


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
