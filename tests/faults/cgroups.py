"""A control group of a test's own, of cgroup v2 or v1; where none can be made the test is skipped, and says why."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.eventually import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/sys/fs/cgroup")


class Group:
    """A group with one controller, below this process's. `v2` says of which kind its files are."""

    def __init__(self, path: Path, *, v2: bool) -> None:
        self.path, self.v2 = path, v2
        self._home = path.parent

    def write(self, name: str, value: object) -> None:
        (self.path / name).write_text(str(value))

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This process is in it: what it starts meanwhile stays there, and it leaves."""
        self.write("cgroup.procs", os.getpid())
        try:
            yield
        finally:
            (self._home / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.path.rmdir()
                return
            except OSError:  # who was in it has ended, and is about to leave
                assert time.monotonic() < deadline, self.read("cgroup.procs")


@contextlib.contextmanager
def group(controller: str) -> Iterator[Group]:
    """A new group; empty when the block is left."""
    home, v2 = _home(controller)
    made = Group(home / f"multikernel-test-{os.getpid()}", v2=v2)
    try:
        made.path.mkdir()
    except OSError as error:
        pytest.skip(f"no group of the controller {controller} can be made in {home}: {error.strerror} (it takes root)")
    try:
        if v2 and controller not in made.read("cgroup.controllers").split():
            pytest.skip(f"the controller {controller} is not given to groups in {home}")
        yield made
    finally:
        made.remove()


def _home(controller: str) -> tuple[Path, bool]:
    """This process's group of that controller, and whether it is of cgroup v2."""
    unified = None
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return ROOT / controller / path.lstrip("/"), False
        if number == "0":
            unified = path.lstrip("/")
    if unified is None:
        pytest.skip("this system has no control groups")
    return ROOT / unified, True
