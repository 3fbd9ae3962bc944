"""The page of faults names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMED = re.findall(r"`((?:tests|csrc)/[\w/.]+)(?:::(\w+))?`", (ROOT / "docs/faults.md").read_text())
ROWS = [line for line in (ROOT / "docs/faults.md").read_text().splitlines() if line.startswith("| ")]


def is_there(path: Path, name: str) -> bool:
    """Whether a file has that test, and runs it: a function of pytest's, or one in the list of a C program."""
    pattern = rf"^def {name}\(" if path.suffix == ".py" else rf"^\s*TEST\({name}\),"
    return re.search(pattern, path.read_text(), re.MULTILINE) is not None


def test_every_test_that_is_named_is_there() -> None:
    for path, name in NAMED:
        assert (ROOT / path).exists(), path
        assert not name or is_there(ROOT / path, name), f"{path}::{name}"


def test_each_fault_has_a_test() -> None:
    assert len(NAMED) > 50
    assert not [row for row in ROWS if not row.startswith("| what goes wrong") and "::" not in row]


def test_what_is_not_there_is_seen() -> None:
    assert not is_there(Path(__file__), "test_that_there_is_not")
