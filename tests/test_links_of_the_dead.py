"""What lies in the links of an instance that dies: its successor gets it, and so does its crash image."""

from __future__ import annotations

import os
import signal
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from tests.eventually import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


DIES = """
    def main(kernel):
        for message in kernel.messages():
            if message.payload == b"die" and not message.redelivered:
                raise LookupError("on purpose")
            if message.payload == b"poison":
                raise LookupError("whatever comes before")
            message.reply(b"%d %d %s" % (kernel.epoch, message.redelivered, message.payload))
"""
SAVES = """
    def main(kernel):
        for message in kernel.messages(timeout=2.0):
            message.reply(b"saved %d %s" % (message.redelivered, message.payload))
"""


@pytest.fixture
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="64M") as machine:
        yield machine


@pytest.fixture
def web(machine: mk.Machine, tmp_path: Path) -> Callable[..., mk.Instance]:
    def make(*, crash: bool = False, **policy: object) -> mk.Instance:
        web = machine.create("web", **policy)
        for name, source in (("image.py", DIES), ("crash.py", SAVES)):
            (tmp_path / name).write_text(textwrap.dedent(source))
        web.load(str(tmp_path / "image.py"))
        if crash:
            web.load(str(tmp_path / "crash.py"), panic=True)
        web.boot(until="ready")
        return web

    return make


def soon(**more: float) -> mk.Restart:
    return mk.Restart("on-failure", delay=0.001, longest=0.01, **more)


def replies(link: mk.Link, count: int) -> list[bytes]:
    return [link.recv(timeout=PATIENCE).payload for _ in range(count)]


def test_restarted_instance_goes_on_with_the_link_and_what_lies_in_it(machine, web):
    it = web(restart=soon())
    with machine.connect("web", timeout=PATIENCE) as link:
        link.send_many([b"a", b"die", b"b"])
        assert replies(link, 3) == [b"1 0 a", b"2 1 die", b"2 0 b"]
        link.send(b"c")
        assert replies(link, 1) == [b"2 0 c"]
    assert [(each.length, each.sender >= 512) for each in it.panic.messages] == [(3, True), (1, True)]


def test_instance_that_is_not_restarted_closes_its_links(machine, web):
    it = web()
    with machine.connect("web", timeout=PATIENCE) as link:
        link.send(b"die")
        with pytest.raises(mk.Closed):
            link.recv(timeout=PATIENCE)
    assert it.state == "failed"


def test_link_is_closed_when_the_restarts_are_given_up(machine, web, tmp_path):
    it = web(restart=soon(limit=2))
    with machine.connect("web", timeout=PATIENCE) as link:
        link.send(b"poison")
        with pytest.raises(mk.Closed):
            link.recv(timeout=PATIENCE)
    until(lambda: (it.state, it.epoch, it.pid) == ("failed", 3, 0))


def test_message_that_kills_one_after_the_other_is_set_aside_and_named_in_the_report(machine, web):
    it = web(restart=soon())
    with machine.connect("web", timeout=PATIENCE) as link:
        link.send_many([b"poison", b"after"], subtype=7)
        assert replies(link, 1) == [b"5 0 after"]
        until(lambda: it.panic.set_aside != ())
        [aside] = it.panic.set_aside
        assert (aside.subtype, aside.length, aside.sender >= 512) == (7, len(b"poison"), True)
        assert it.panic.epoch == 4
        assert "Messages that were set aside:\n  from 512: type 0x4000, subtype 7" in it.panic.text()


def test_crash_image_gets_what_the_dead_one_did_not_deal_with(machine, web):
    it = web(crash=True)
    with machine.connect("web", timeout=PATIENCE) as link:
        link.send_many([b"a", b"die", b"b"])
        assert replies(link, 3) == [b"1 0 a", b"saved 1 die", b"saved 0 b"]
        with pytest.raises(mk.Closed):
            link.recv(timeout=PATIENCE)
    assert (it.state, it.epoch) == ("failed", 2)


def test_link_goes_on_behind_the_crash_image(machine, web):
    web(crash=True, restart=soon())
    with machine.connect("web", timeout=PATIENCE) as link:
        link.send_many([b"die", b"a"])
        assert replies(link, 2) == [b"saved 1 die", b"saved 0 a"]
        link.send(b"b")
        assert replies(link, 1)[0] in (b"3 0 b", b"saved 0 b")


def test_hung_instance_that_is_rebooted_goes_on_with_its_link(machine, web):
    it = web(watchdog=0.3, on_hang="reboot")

    with machine.connect("web", timeout=PATIENCE) as link:
        link.send(b"a")
        assert replies(link, 1) == [b"1 0 a"]
        os.kill(it.pid, signal.SIGSTOP)
        link.send(b"b")
        heard = replies(link, 1)[0]
        if heard == b"2 1 a":  # it was stopped before it had asked for more, so that it was not done with it
            heard = replies(link, 1)[0]
        assert heard in (b"2 0 b", b"2 1 b")
    assert it.last_end.reason == "watchdog"
