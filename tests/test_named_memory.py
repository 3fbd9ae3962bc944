"""Named memory: an instance's own, from one incarnation to the next, in the budget, and clear errors for the rest."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import multikernel as mk
from tests.eventually import PATIENCE

IMAGE = """
import os
import numpy as np

def main(kernel):
    for message in kernel.messages():
        words = message.payload.decode().split()
        try:
            message.reply(str(answer(kernel, *words)).encode())
        except Exception as error:
            message.reply(f"{type(error).__name__}: {error}".encode())

def answer(kernel, what, name, size, *more):
    memory = kernel.memory(name, size)
    if what == "length":
        return len(memory)
    if what == "count":  # as an array, in place
        table = np.frombuffer(memory, np.uint64)
        table[-1] += 1
        return table[-1]
    if what == "same":
        return kernel.memory(name, size) is memory
    if what == "fork":
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
            memory[0] = 1
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


@pytest.fixture(scope="module")
def running() -> Iterator[mk.Machine]:
    with mk.Machine(memory="256M") as machine:
        yield machine


@pytest.fixture
def web(running: mk.Machine, tmp_path: Path) -> Iterator[mk.Instance]:
    web = running.create("web", memory="8M", restart=mk.Restart("always", delay=0.0))
    (tmp_path / "image.py").write_text(IMAGE)
    web.load(str(tmp_path / "image.py"))
    web.boot()
    yield web
    web.kill()
    web.delete()


@pytest.fixture
def ask(running: mk.Machine, web: mk.Instance) -> Iterator[Callable[[str], str]]:
    with running.connect("web", capacity="64K") as link:
        yield lambda words: link.request(words.encode(), timeout=PATIENCE).payload.decode()


def named_kb(machine: mk.Machine) -> int:
    return int(dict(line.split(":") for line in machine.proc["instances/web/memory"].splitlines())["Named"].split()[0])


def test_a_successor_has_it_as_it_was_left(web, ask):
    assert ask("count table 2M") == "1"
    assert ask("count table 2M") == "2"
    web.reboot()
    assert ask("count table 2M") == "3"
    assert ask("length table 2M") == str(2 << 20)  # so it is done with the count, which would come again
    os.kill(web.pid, signal.SIGKILL)
    assert ask("count table 2M") == "4"
    assert web.epoch == 3
    assert ask("count other 4K") == "1"  # each name its own


def test_it_goes_when_no_successor_is_due_and_is_all_zero_then(running, web):
    for _ in range(2):
        with running.connect("web", capacity="64K") as link:
            assert link.request(b"count table 6M", timeout=PATIENCE).payload == b"1"
            assert named_kb(running) == 6 * 1024
        web.halt()
        assert named_kb(running) == 0
        web.boot()


def test_it_is_whole_pages_and_the_same_for_the_same_name(ask):
    assert ask("length table 5000") == "8192"
    assert ask("same table 5000") == "True"
    assert ask("length table 8192") == "8192"


@pytest.mark.parametrize("after", ["at once", "a reboot"])
def test_another_size_for_the_same_name_is_refused_and_it_stays(web, ask, after):
    assert ask("count table 1M") == "1"
    if after == "a reboot":
        web.reboot()
    refused = ask("count table 2M")
    assert refused.startswith("ResourceError: the memory 'table' has 1M, not 2M")
    assert "Ask for that size, or take another name." in refused
    assert ask("count table 1M") == "2"


def test_what_the_budget_has_no_room_for_is_refused(running, ask):
    assert ask("count table 6M") == "1"
    refused = ask("count other 6M")
    assert refused.startswith("ResourceError: no room for the memory 'other' of 6M: the instance has 1.")
    assert "Create it with more memory." in refused
    assert ask("count other 64K") == "1"
    assert named_kb(running) == 6 * 1024 + 64
    with pytest.raises(mk.ResourceError, match="beside image, console and named memory"):
        running.connect("web", capacity="4M")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("count a/b 4K", "ResourceError: 'a/b' cannot be a name"),
        ("count .. 4K", "ResourceError: '..' cannot be a name"),
        ("count table 0", "ValueError"),
        ("count table 1T", "a memory of 1099511627776 bytes"),
        ("count table much", "ValueError"),
    ],
)
def test_what_is_no_name_and_no_size_is_refused(running, ask, words, why):
    assert why in ask(words)
    assert named_kb(running) == 0


def test_no_more_than_sixty_four(ask):
    for number in range(64):
        assert ask(f"count m{number} 4K") == "1"
    assert ask("count more 4K").startswith("ResourceError: no more than 64 memories for one instance")
    assert ask("count m7 4K") == "2"


def test_a_forked_child_does_not_have_it(ask):
    """It would be a second writer, and outlive the incarnation."""
    assert ask("fork table 4K") == str(-signal.SIGSEGV)
    assert ask("count table 4K") == "1"
