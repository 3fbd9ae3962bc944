"""What docs/native.md says is typed, is typed: its file is compiled, its commands print what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from .build import ROOT

PAGE = (ROOT / "docs/native.md").read_text()
SOURCE = re.findall(r"```c\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
MARK = "=== next ==="


def test_the_page_has_one_file_and_its_commands():
    assert len(SOURCE) == 1
    assert sum(block.count("$ ") for block in COMMANDS) > 10


def test_the_commands_of_the_page_print_what_it_shows(tmp_path):
    (tmp_path / "echo.c").write_text(SOURCE[0])
    steps = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", "".join(COMMANDS), re.MULTILINE)
    script = "".join(f"{command}\necho '{MARK}'\n" for command, _ in steps)
    done = subprocess.run(
        ["bash", "-c", f"exec 2>&1\n{script}"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    printed = done.stdout.split(f"{MARK}\n")  # a payload ends without a new line where it is not shown to people
    assert len(printed) == len(steps) + 1, done.stdout + done.stderr
    for (command, shown), output in zip(steps, printed, strict=False):
        if shown != "...\n":
            assert (command, output.removesuffix("\n")) == (command, shown.removesuffix("\n"))
        assert "rror:" not in output, (command, output)
