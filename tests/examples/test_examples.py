"""Each example runs as its first lines say, and checks itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
EXPECTED = {
    "arrays.py": "2000 of 2000 pictures were right",
    "kv.py": "interrupted 1 times by vector 5: 999 keys",
    "service.py": "Expected `int`, got `str`",
    "pipeline.py": "one process counts the same",
}


def run(name: str, *arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_example_runs_and_finds_itself_right(name, tmp_path):
    """From another directory: nothing in it hangs on where it is started."""
    ran = run(name, directory=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert EXPECTED[name] in ran.stdout
    assert ran.stderr == ""


def test_pipeline_counts_the_words_of_a_file(tmp_path):
    text = tmp_path / "text"
    text.write_text("the cat and the dog\nand the bird\n" * 1000)
    ran = run("pipeline.py", str(text), directory=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "8000 words; the most common: the 3000, and 2000" in ran.stdout


def test_pipeline_with_a_file_that_is_not_there_says_so(tmp_path):
    ran = run("pipeline.py", os.fspath(tmp_path / "nowhere"), directory=tmp_path)
    assert ran.returncode == 1
    assert "No such file or directory" in ran.stdout
    assert ran.stderr == ""
