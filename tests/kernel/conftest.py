"""One machine for a module's tests, and what boots an image written in place."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import multikernel as mk
from multikernel.host.rundir import RunDir


@pytest.fixture(scope="module")
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="256M") as machine:
        yield machine
        assert RunDir(machine.name).log_path.read_text() == ""  # the host had nothing to complain of


@pytest.fixture
def web(machine: mk.Machine) -> Iterator[mk.Instance]:
    web = machine.create("web", memory="32M")
    yield web
    if web.state == "active":
        web.kill()
    web.delete()


@pytest.fixture
def boot(machine: mk.Machine, web: mk.Instance, tmp_path: Path) -> Callable[[str], mk.Link]:
    """Boot an image, given as its source, and link to it; the link is closed at the end."""
    links: list[mk.Link] = []

    def boot(source: str) -> mk.Link:
        path = tmp_path / "image.py"
        path.write_text(textwrap.dedent(source))
        web.load(f"{path}:main")
        web.boot()
        links.append(machine.connect("web", capacity="64K"))
        return links[-1]

    yield boot
    for link in links:
        link.close()


@pytest.fixture
def console(machine: mk.Machine) -> Callable[[], str]:
    """What the instance has printed."""
    return lambda: machine.proc["instances/web/console"]
