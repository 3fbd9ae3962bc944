"""What the README shows runs as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
PAGES = sorted(set(re.findall(r"\]\(((?:docs|examples)/[^)#]*|[A-Z]+\.md)\)", README.read_text())))
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def run(example: str, directory: Path) -> str:
    script = directory / "example.py"
    script.write_text(example)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=50, cwd=directory, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_the_readme_has_its_two_examples() -> None:
    assert len(EXAMPLES) == 2


def test_the_first_example_boots_an_instance_that_counts_an_interrupt_before_it_answers(tmp_path: Path) -> None:
    printed = run(EXAMPLES[0], tmp_path)
    assert printed.startswith("1 ticks, and you said: hello\n")
    assert re.search(r"^Name:\techo$", printed, re.MULTILINE)
    assert re.search(r"^State:\tactive$", printed, re.MULTILINE)
    assert "End(reason='halted'" in printed


def test_the_second_example_sends_through_a_ring(tmp_path: Path) -> None:
    assert run(EXAMPLES[1], tmp_path) == "1000 messages\n"


@pytest.mark.parametrize("page", PAGES)
def test_every_page_that_the_readme_names_is_there(page: str) -> None:
    assert (README.parent / page).exists()
