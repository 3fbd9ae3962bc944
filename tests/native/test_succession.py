"""Links outlive native incarnations as they outlive those of Python, whichever is at the other end."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from tests.eventually import PATIENCE
from tests.images.relay import FORMAT
from tests.succession import RELAY, Stream, crash, machine, make, running  # noqa: F401 - two are fixtures

from .build import IMAGES, build

if TYPE_CHECKING:
    from collections.abc import Callable

ALWAYS = mk.Restart("always", limit=1000, delay=0.0)


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> Callable[[str], str]:
    native = str(build(IMAGES / "relay.c", tmp_path_factory.mktemp("relay")))
    return {"native": native, "python": RELAY}.__getitem__


def test_one_message_to_a_successor_that_sleeps_wakes_it(machine, spec):  # noqa: F811
    web = make(machine, "web", spec=spec("native"), restart=ALWAYS)
    with machine.connect("web", capacity="64K") as link:
        for epoch in (1, 2, 3):
            assert link.request(b"epoch", timeout=PATIENCE).payload == b"%d" % epoch
            crash(web)


def test_a_message_of_which_four_have_died_is_set_aside(machine, spec):  # noqa: F811
    make(machine, "web", spec=spec("native"), restart=ALWAYS)
    with machine.connect("web", capacity="64K") as link:
        link.send(b"drop")
        assert link.request(b"epoch", timeout=PATIENCE).payload == b"5"


@pytest.mark.parametrize(("one", "other"), [("native", "native"), ("native", "python"), ("python", "native")])
@pytest.mark.parametrize("who", [["a"], ["b"], ["a", "b"]], ids="-".join)
def test_a_chain_goes_on_whichever_of_its_instances_are_killed(machine, spec, one, other, who):  # noqa: F811
    rng = random.Random(2)
    make(machine, "b", spec=spec(other), restart=ALWAYS)
    make(machine, "a", "b", spec=spec(one), restart=ALWAYS)
    with machine.connect("a", capacity="64K") as link:
        stream = Stream(link)
        for _ in range(6):
            until = stream.due + rng.randrange(600)
            while stream.due < until:
                stream.step()
            for name in who:
                crash(machine[name])
        stream.finish()
        assert all(machine[name].epoch > 1 for name in who)


def test_a_sender_waits_for_room_until_the_successor_takes_it(machine, spec):  # noqa: F811
    """A native instance sends to one that is stopped, until its lane is full; another takes over, and all arrives."""
    b = make(machine, "b", spec=spec("python"), restart=ALWAYS)
    make(machine, "a", "b", spec=spec("native"))
    with machine.connect("a", capacity="64K") as link:
        stream = Stream(link)
        stream.step()
        stream.finish()
        os.kill(b.pid, signal.SIGSTOP)
        while link.try_send(FORMAT.pack(stream.sent, 0)):  # until the lanes on the way are full
            stream.sent += 1
        crash(b)
        stream.finish()
