"""A newcomer whose system lacks something reads one line that says what, and what to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts/prerequisites"


@pytest.fixture
def system(tmp_path):
    """A PATH with nothing in it but a shell's needs. Returns a function that adds a program to it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "uname"):
        (programs / name).symlink_to(shutil.which(name) or name)

    def add(name: str, script: str) -> None:
        (programs / name).write_text(f"#!{shutil.which('sh')}\n{script}\n")
        (programs / name).chmod(0o755)

    return add


@pytest.fixture
def prerequisites(system, tmp_path):
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(tmp_path / "bin"), **environment}
        return subprocess.run(
            [SCRIPT, *arguments], env=environment, capture_output=True, text=True, timeout=30, check=False
        )

    return run


def this_python() -> str:
    return f'exec {os.path.realpath(sys.executable)} "$@"'


def python_that_answers(version: str, status: int) -> str:
    """The probe's answer of a Python that this machine has not got."""
    return f'echo "/usr/bin/python3 {version}"; exit {status}'


def test_no_python_at_all(prerequisites):
    done = prerequisites()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no Python 3.11 or newer" in done.stderr
    assert "apt install python3 " in done.stderr


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (3, "3.11 or newer is needed, and here is only 3.9"),
        (4, "Python 3.9 has no venv module: apt install python3.9-venv"),
        (5, "Python 3.9 has no C headers (Python.h): apt install python3.9-dev"),
    ],
)
def test_a_python_that_lacks_something(prerequisites, system, status, said):
    system("python3", python_that_answers("3.9", status))
    done = prerequisites()
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_no_compiler(prerequisites, system):
    system("python3", this_python())
    done = prerequisites(CC="no-such-cc")
    assert done.returncode == 1
    assert done.stderr == "multikernel: no C compiler (no-such-cc): apt install gcc libc6-dev\n"


def test_a_compiler_without_headers(prerequisites, system):
    system("python3", this_python())
    system("broken-cc", "exit 1")
    done = prerequisites(CC="broken-cc")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot build a C11 program" in done.stderr


def test_a_newer_python_is_found_beside_one_that_is_too_old(prerequisites, system):
    system("python3", python_that_answers("3.10", 3))
    system("python3.11", this_python())
    system("good-cc", "exit 0")
    done = prerequisites(CC="good-cc")
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).samefile(os.path.realpath(sys.executable))


def test_a_python_that_was_named_is_the_only_one_tried(prerequisites, system):
    system("python3", this_python())
    system("old", python_that_answers("3.10", 3))
    done = prerequisites("old", CC="good-cc")
    assert done.returncode == 1
    assert "only 3.10 (old)" in done.stderr
