"""`multikernel console --attach`: a terminal with input, in real terminals."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

import multikernel as mk
from tests.eventually import PATIENCE

Cli = Callable[..., Any]
COMMAND = [sys.executable, "-m", "multikernel"]

IMAGE = """
import sys
def main(kernel):
    print("talk to me")
    for line in sys.stdin:
        print(line.strip().upper())
        if line == "bye\\n":
            return 5
        if line == "flood\\n":
            for number in range(3000):
                print("x" * 60)
            print("flooded")
"""


@pytest.fixture
def web(directory, monkeypatch) -> Iterator[mk.Instance]:
    (directory / "talks.py").write_text(IMAGE)
    with mk.Machine(memory="64M", name="typing") as machine:
        monkeypatch.setenv("MULTIKERNEL_MACHINE", "typing")
        web = machine.create("web", memory="32M")
        web.load("talks.py:main")
        web.boot()
        yield web


class Terminal:
    """`multikernel console web --attach` in a terminal of its own."""

    def __init__(self) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [*COMMAND, "console", "web", "--attach"])
        self.said = b""

    def type(self, text: bytes) -> None:
        os.write(self._fd, text)

    def expect(self, text: bytes) -> None:
        """Read until `text` has come; drop it and what was before."""
        while text not in self.said:
            assert select.select([self._fd], [], [], PATIENCE)[0], self.said
            self.said += os.read(self._fd, 4096)
        self.said = self.said.partition(text)[2]

    def status(self) -> int:
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)


def test_what_is_typed_is_read_and_the_answer_is_shown_until_the_end(web):
    with Terminal() as terminal:
        terminal.expect(b"talk to me\r\n")
        terminal.type(b"hello\n")
        terminal.expect(b"hello\r\n")  # the terminal's echo
        terminal.expect(b"HELLO\r\n")
        terminal.type(b"flood\n")
        terminal.expect(b"flooded\r\n")
        terminal.type(b"bye\n")
        terminal.expect(b"BYE\r\n")
        assert terminal.status() == 5


def test_a_ctrl_c_leaves_the_instance_running_and_the_next_one_attaches(web):
    with Terminal() as terminal:
        terminal.expect(b"talk to me\r\n")
        terminal.type(b"\x03")
        assert terminal.status() == 130
    assert web.state == "active"
    with Terminal() as terminal:
        terminal.type(b"again\n")
        terminal.expect(b"AGAIN\r\n")
        terminal.type(b"\x04")  # Ctrl-D
        terminal.expect(b"end of input; what it prints goes on being shown")
        web.kill()
        assert terminal.status() == 128 + signal.SIGKILL


def test_a_second_one_is_refused_and_may_follow(cli: Cli, web):
    with Terminal() as terminal:
        terminal.expect(b"talk to me\r\n")
        assert "has one who types already" in cli("console", "web", "--attach", status=5).err
        assert "talk to me" in cli("console", "web").out


def test_input_comes_from_a_pipe_too(web, directory):
    ran = subprocess.run(
        [*COMMAND, "console", "web", "--attach"],
        input="one\nbye\n",
        capture_output=True,
        text=True,
        cwd=directory,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == 5
    assert ran.stdout == "talk to me\nONE\nBYE\n"
    assert "Traceback" not in ran.stderr


def test_attaching_to_what_does_not_run_is_refused(cli: Cli, web):
    web.kill()
    assert "cannot attach to 'web': it is loaded" in cli("console", "web", "--attach", status=3).err
    assert "takes no input" in cli("console", "web", "--attach", "--json", status=2).out
