"""Builds native images as a user would: by what the package says of itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import multikernel as mk

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "tests/images"
EXAMPLES = ROOT / "examples/native"


def build(source: Path, directory: Path, *flags: str, name: str | None = None) -> Path:
    """Compile and link one source; warnings are errors. Returns the program."""
    program = directory / (name or source.stem)
    compiler = ["c++", "-std=c++17"] if source.suffix == ".cpp" else ["cc", "-std=gnu11"]
    options = ["-O1", "-Wall", "-Wextra", "-Werror", f"-I{mk.get_include()}", *flags]
    command = [*compiler, *options, str(source), mk.get_library(), "-pthread", "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return program
