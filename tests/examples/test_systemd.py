"""The unit file that keeps a machine under systemd."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from multikernel.cli.group import COMMANDS

UNIT = Path(__file__).resolve().parents[2] / "examples/systemd/multikernel@.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_unit_is_one_that_systemd_takes_without_a_word(tmp_path):
    instance = tmp_path / "multikernel@web.service"
    shutil.copy(UNIT, instance)
    ran = subprocess.run(
        ["systemd-analyze", "verify", str(instance)], capture_output=True, text=True, timeout=55, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_unit_uses_commands_that_there_are():
    lines = [line.partition("=")[2] for line in UNIT.read_text().splitlines() if line.startswith("Exec")]
    assert len(lines) == 2
    for line in lines:
        _, program, command, *_ = shlex.split(line)
        assert program == "multikernel"
        assert command in COMMANDS
