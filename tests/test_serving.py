"""An instance that serves many does not end with one of them."""

from __future__ import annotations

from pathlib import Path

import multikernel as mk
from tests.eventually import PATIENCE
from tests.shm.idle import check_idle

IMAGES = Path(__file__).parent / "images"


def boot_echo(machine: mk.Machine) -> mk.Instance:
    """An instance that answers every message."""
    echo = machine.create("echo", memory="32M")
    echo.load(f"{IMAGES / 'echo.py'}:main")
    echo.boot()
    return echo


def test_a_client_that_leaves_before_its_answers_ends_nothing() -> None:
    """A server's loop replies to whoever asked; that one may be gone by then."""
    with mk.Machine(memory="64M") as machine:
        echo = boot_echo(machine)
        with machine.connect("echo", capacity="64K") as other:
            for _ in range(20):
                with machine.connect("echo", capacity="4K") as leaves:
                    leaves.send_many([b"x" * 100] * 20)
                assert other.request(b"still there?", timeout=PATIENCE).payload == b"still there?"
        assert echo.state == "active"
        assert echo.halt().reason == "halted"


def test_the_view_counts_the_interrupts_that_were_raised_and_none_of_the_hosts() -> None:
    """The host rings an instance for its own purposes; nobody asked for those to be counted."""
    with mk.Machine(memory="64M") as machine:
        boot_echo(machine)
        with machine.connect("echo", capacity="64K") as link:
            link.ipi(7)
            link.request(b"", timeout=PATIENCE)
            assert "\nIpisReceived:\t1\n" in machine.proc["instances/echo/status"]
            assert machine.proc["interrupts"].splitlines()[-1].split()[:2] == ["TOT:", "1"]


def test_a_link_of_a_machine_that_was_closed_raises_closed() -> None:
    """And no error of the machine's insides."""
    with mk.Machine(memory="64M") as machine:
        boot_echo(machine)
        link = machine.connect("echo", capacity="64K")
    try:
        link.request(b"anybody?", timeout=PATIENCE)
    except mk.Closed:
        pass
    else:
        raise AssertionError("a dead instance has answered")
    link.close()


def test_an_instance_that_waits_for_several_links_serves_its_host_meanwhile() -> None:
    """`mk.wait` inside an image: links are offered and taken, and peers that end are noticed."""
    with mk.Machine(memory="192M") as machine:
        for name in ("one", "two"):
            peer = machine.create(name, memory="32M", exclusive=False)
            peer.load(f"{IMAGES / 'echo.py'}:main")
            peer.boot()
        gather = machine.create("gather", memory="32M", exclusive=False)
        gather.load(f"{IMAGES / 'gather.py'}:main")
        gather.boot()
        with machine.connect("gather", capacity="64K", timeout=PATIENCE) as link:
            for number in range(20):
                assert link.request(b"%d" % number, timeout=PATIENCE).payload == b"%d,%d" % (number, number)
            link.send(b"silence")
            for _ in range(3):
                machine.connect("gather", capacity="64K", timeout=PATIENCE).close()
            machine["two"].halt()
            assert link.recv(timeout=PATIENCE).payload == b"two"
        assert gather.state == "active"
        assert gather.halt().reason == "halted"


def test_an_instance_that_waits_for_messages_does_nothing_at_all() -> None:
    """Nor does its host, for it: no heartbeat, no time slices. Linked or not, after messages and interrupts."""
    with mk.Machine(memory="64M") as machine:
        echo = boot_echo(machine)
        assert echo.pid is not None
        check_idle(echo.pid)
        with machine.connect("echo", capacity="64K") as link:
            assert link.request(b"x", timeout=PATIENCE).payload == b"x"
            link.ipi(3)
            check_idle(echo.pid)
            check_idle(machine.pid)
            assert link.request(b"x", timeout=PATIENCE).payload == b"x"
