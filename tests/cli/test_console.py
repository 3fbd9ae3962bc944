"""`multikernel console`: which lines it shows, what stands before them, and that nothing is lost in silence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import multikernel as mk
from multikernel.cli.follow import Follower, Shown
from multikernel.shm.pages import Line
from tests.eventually import PATIENCE, until

Cli = Callable[..., Any]

IMAGE = """
import logging, sys
def main(kernel):
    print("printed")
    sys.stdout.flush()
    kernel.log("careful", level=4, port=80)
    logging.error("bad")
    kernel.log("detail", level=7)
    for message in kernel.messages():
        for number in range(int(message.payload)):
            kernel.log("x" * 100)
        message.reply(b"done")
"""


@pytest.fixture
def web(directory, monkeypatch) -> Iterator[mk.Instance]:
    (directory / "logs.py").write_text(IMAGE)
    with mk.Machine(memory="64M", name="consoles") as machine:
        monkeypatch.setenv("MULTIKERNEL_MACHINE", "consoles")
        web = machine.create("web", memory="32M")
        web.load("logs.py:main")
        web.boot(until="ready")
        yield web


@pytest.fixture
def printed(web) -> mk.Instance:
    """Its first line goes by way of a pipe, and a thread; the others do not."""
    until(lambda: "printed" in web.machine.proc["instances/web/console"])
    return web


def test_lines_of_a_level_and_more_urgent_ones_are_shown(cli: Cli, printed):
    assert set(cli("console", "web").out.splitlines()) == {"printed", "careful port=80", "root: bad", "detail"}
    assert cli("console", "web", "--level", "warning").out == "careful port=80\nroot: bad\n"
    assert cli("console", "web", "-l", "3").out == "root: bad\n"
    document = cli("console", "web", "-l", "err", "--json").document
    assert [(line["level"], line["text"], line["lost"]) for line in document["lines"]] == [(3, "root: bad", 0)]


def test_lines_are_shown_with_their_time(cli: Cli, printed):
    lines = cli("console", "web", "--time", "--level", "4").out.splitlines()
    times = [re.fullmatch(r"\[ *(\d+\.\d{6})\] (careful port=80|root: bad)", line) for line in lines]
    assert len(times) == 2
    assert float(times[0][1]) <= float(times[1][1])


def test_a_level_that_is_none_is_refused_with_those_there_are(cli: Cli, web):
    assert (
        "emerg, alert, crit, err, warning, notice, info, debug, or 0 to 7"
        in cli("console", "web", "--level", "loud", status=2).err
    )
    assert "is no level" in cli("console", "web", "--level", "8", status=2).err


def test_parts_of_a_line_are_one_line_with_one_time():
    shown = Shown(times=True)
    text = shown.text([Line(1_500_000_000, 6, "be", partial=True)])
    text += shown.text([Line(2_000_000_000, 6, "gun", partial=False), Line(2_000_000_000, 6, "next", partial=False)])
    assert text == "[     1.500000] begun\n[     2.000000] next\n"


def test_who_follows_is_told_what_was_printed_faster_than_was_read(web, capsys):
    written: list[str] = []
    follower = Follower(web, written.append)
    follower.look()
    assert capsys.readouterr().err == ""
    with web.machine.connect("web", capacity="64K") as link:
        link.request(b"2000", timeout=PATIENCE)
        follower.look()
        assert re.fullmatch(r"web printed faster than was read: some \d+ bytes are lost\n", capsys.readouterr().err)
        written.clear()
        link.request(b"3", timeout=PATIENCE)
        follower.look()
        assert "".join(written) == ("x" * 100 + "\n") * 3
        assert capsys.readouterr().err == ""
