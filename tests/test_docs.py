"""What the pages say is typed, is typed: their files are written, their commands print what is shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = {"tutorial.md": {"python": "counter.py", "c": "upper.c"}, "native.md": {"c": "echo.c"}}
"""Which file the first block of a language is."""
MARK = "=== next ==="


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_print_what_it_shows(page, tmp_path):
    for language, name in PAGES[page].items():
        (tmp_path / name).write_text(blocks(page, language)[0])
    steps = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", "".join(blocks(page, "console")), re.MULTILINE)
    assert len(steps) > 10
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
        if "panic" not in command:
            assert "rror:" not in output, (command, output)
