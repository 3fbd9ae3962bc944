"""One machine for the tests of a file, and an instance called web for each of them."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import multikernel as mk


@pytest.fixture(scope="module")
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="1G") as machine:
        yield machine


@pytest.fixture
def create(machine: mk.Machine) -> Iterator[Callable[..., mk.Instance]]:
    """Creates an instance called web, which is gone at the end, and all that it had loaded."""
    yield lambda **policy: machine.create("web", **policy)
    web = machine["web"]
    with contextlib.suppress(mk.StateError):  # it does not run, and is not to
        web.kill()
    web.delete()
    assert machine.proc.snapshot("kimages") == []


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., None]:
    """Loads an image that is given as its source."""

    def load(web: mk.Instance, source: str, name: str = "image.py", **how: object) -> None:
        (tmp_path / name).write_text(textwrap.dedent(source))
        web.load(str(tmp_path / name), **how)

    return load
