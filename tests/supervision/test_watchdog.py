"""An instance that hangs is seen, whatever it hangs in; one that sleeps, or is only slow, is left alone."""

from __future__ import annotations

import os
import select
import signal
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.eventually import PATIENCE, until
from tests.shm.idle import check_idle, wait_until_idle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import multikernel as mk

WATCHDOG = 0.5  # seconds: long beside a busy machine's hiccups where nothing may be taken for hung

IMAGE = """
    import signal, threading, time

    def main(kernel):
        for message in kernel.messages():
            if not message.redelivered:  # what the one before hung in
                deal_with(kernel, message.payload.decode())
            message.reply(str(kernel.epoch).encode())

    def deal_with(kernel, what):
        if what == "deadlock":
            lock = threading.Lock()
            with lock, lock:
                pass
        if what == "endless loop":
            while True:
                pass
        if what == "deaf":
            signal.signal(signal.SIGABRT, signal.SIG_IGN)
            signal.pause()
        if what == "busy, and looks":
            while not kernel.halting:
                pass
        if what.startswith("slow"):
            until = time.monotonic() + float(what.split()[1])
            while time.monotonic() < until:
                pass
"""


@pytest.fixture
def web(create: Callable[..., mk.Instance], load: Callable[..., None]) -> Callable[..., mk.Instance]:
    """Makes an instance called web, active, that hangs as it is told to."""

    def make(on_hang: str = "report", watchdog: float = WATCHDOG, **policy: object) -> mk.Instance:
        web = create(watchdog=watchdog, on_hang=on_hang, **policy)
        load(web, IMAGE)
        web.boot(until="ready")
        return web

    return make


def is_hung(web: mk.Instance) -> bool:
    return web.machine.view.instance(web.id).supervised.hung_since_ns != 0


def pass_time(seconds: float) -> None:
    """Let time go by, in which nothing is to happen."""
    select.select([], [], [], seconds)


HANGS = ["deadlock", "endless loop"]


@pytest.mark.parametrize("what", HANGS)
def test_hang_is_reported_and_nothing_else_is_done(web, machine, what):
    it = web()
    with machine.connect("web", timeout=PATIENCE) as link:
        link.send(what.encode())
        until(lambda: is_hung(it))
        assert (it.state, it.last_end) == ("active", None)
        assert float(machine.proc["instances/web/status"].split("Hung:\t")[1].split(" ")[0]) >= WATCHDOG
        it.kill()
    assert not is_hung(it)


@pytest.mark.parametrize("what", HANGS)
def test_hang_is_killed_with_the_stacks_of_its_threads_in_the_report(web, machine, what):
    it = web("dump")
    with machine.connect("web", timeout=PATIENCE) as link:
        link.send(what.encode())
        end = it.wait(timeout=PATIENCE)
    assert (end.reason, it.state) == ("watchdog", "failed")
    assert it.panic.cause.startswith("watchdog: no sign of life for ")
    assert "in deal_with" in it.panic.threads
    assert [each.length for each in it.panic.messages] == [len(what)]


def test_hung_one_that_ignores_the_signal_is_killed_without_its_stacks(web, machine):
    it = web("dump", watchdog=0.1)
    with machine.connect("web", timeout=PATIENCE) as link:
        link.send(b"deaf")
        end = it.wait(timeout=PATIENCE)
    assert (end.reason, end.signal, it.panic.threads) == ("watchdog", signal.SIGKILL, "")


def test_stopped_one_that_has_something_to_read_is_hung_and_says_its_stacks_all_the_same(web, machine):
    it = web("dump")
    with machine.connect("web", timeout=PATIENCE) as link:
        os.kill(it.pid, signal.SIGSTOP)
        link.send(b"hello")
        assert it.wait(timeout=PATIENCE).reason == "watchdog"
    assert "in main" in it.panic.threads


def test_hang_is_booted_again_if_that_is_asked_for(web, machine):
    it = web("reboot")
    with machine.connect("web", timeout=PATIENCE) as link:
        link.send(b"endless loop")
        until(lambda: (it.state, it.epoch) == ("active", 2))
    assert it.last_end.reason == "watchdog"
    with machine.connect("web", timeout=PATIENCE) as link:
        assert link.request(b"", timeout=PATIENCE).payload == b"2"


def test_one_that_goes_on_is_hung_no_more(web, machine):
    it = web()
    with machine.connect("web", timeout=PATIENCE) as link:
        os.kill(it.pid, signal.SIGSTOP)
        link.send(b"hello")
        until(lambda: is_hung(it))
        os.kill(it.pid, signal.SIGCONT)
        assert link.recv(timeout=PATIENCE).payload == b"1"
        until(lambda: not is_hung(it))
    assert "Hung:\t-\n" in machine.proc["instances/web/status"]


def test_parked_one_is_alive_and_is_not_disturbed(web, machine):
    it = web("dump", watchdog=0.25)
    with machine.connect("web", timeout=PATIENCE) as link:
        link.request(b"", timeout=PATIENCE)
        check_idle(it.pid, 0.6)
        assert (it.state, is_hung(it)) == ("active", False)


def test_parked_one_that_is_stopped_is_left_alone_while_nothing_waits_for_it(web):
    it = web("dump", watchdog=0.25)
    wait_until_idle(it.pid)
    os.kill(it.pid, signal.SIGSTOP)
    pass_time(0.6)
    assert (it.state, is_hung(it)) == ("active", False)
    os.kill(it.pid, signal.SIGCONT)


def test_busy_one_that_looks_for_a_halt_answers_the_host(web, machine):
    it = web("dump")
    with machine.connect("web", timeout=PATIENCE) as link:
        link.send(b"busy, and looks")
        beat = machine.watched(it.id)[1].read().heartbeat_ns
        until(lambda: machine.watched(it.id)[1].read().heartbeat_ns > beat + 2 * WATCHDOG * 1e9)
        assert (it.state, is_hung(it)) == ("active", False)
        assert it.halt(timeout=PATIENCE).reason == "halted"


def test_slow_one_that_goes_on_is_alive(web, machine):
    it = web("dump", watchdog=1.0)
    with machine.connect("web", timeout=PATIENCE) as link:
        for _ in range(6):  # never idle, and for longer than its watchdog
            link.send(b"slow 0.2")
        for _ in range(6):
            link.recv(timeout=PATIENCE)
    assert (it.state, is_hung(it)) == ("active", False)


def test_pause_of_the_whole_machine_is_nobody_s_death(web, machine):
    """As when a virtual machine is paused: the watcher notices that it slept itself."""
    it = web("dump")
    with machine.connect("web", timeout=PATIENCE) as link:
        link.send(b"slow 0.1")
        tree = [machine.pid, it.pid]
        for pid in tree:
            os.kill(pid, signal.SIGSTOP)
        pass_time(2.5 * WATCHDOG)
        for pid in tree:
            os.kill(pid, signal.SIGCONT)
        assert link.recv(timeout=PATIENCE).payload == b"1"
        pass_time(WATCHDOG)
    assert (it.state, is_hung(it), it.epoch) == ("active", False, 1)


def test_stopped_host_takes_nobody_for_hung_when_it_goes_on(web, machine):
    it = web("dump")
    os.kill(machine.pid, signal.SIGSTOP)
    pass_time(2.5 * WATCHDOG)
    os.kill(machine.pid, signal.SIGCONT)
    pass_time(WATCHDOG)
    assert (it.state, is_hung(it)) == ("active", False)


def test_halt_of_a_hung_one_is_a_halt(web, machine):
    it = web()
    with machine.connect("web", timeout=PATIENCE) as link:
        link.send(b"endless loop")
        until(lambda: is_hung(it))
        end = it.halt(timeout=0.1)
    assert (end.reason, end.forced, it.state) == ("halted", True, "loaded")
    assert it.panic is None


ASYNCHRONOUS = """
    import asyncio, time

    async def main(kernel):
        async for message in kernel.messages():
            if message.payload == b"hang":
                while True:
                    pass
            if message.payload == b"hang later":  # nothing is unread then, and everything seems to be asleep
                asyncio.get_running_loop().call_later(0.01, time.sleep, 1000)
            if message.payload == b"work":
                asyncio.create_task(asyncio.sleep(600))
            message.reply(message.payload)
"""


@pytest.fixture
def asynchronous(machine: mk.Machine, tmp_path: Path) -> Iterator[mk.Instance]:
    (tmp_path / "asynchronous.py").write_text(textwrap.dedent(ASYNCHRONOUS))
    it = machine.create("asynchronous", watchdog=WATCHDOG)
    it.load(str(tmp_path / "asynchronous.py"))
    it.boot(until="ready")
    yield it
    if it.state == "active":
        it.kill()
    it.delete()


@pytest.mark.parametrize("what", [b"hang", b"hang later"])
def test_an_event_loop_that_hangs_is_seen_whatever_its_lanes_say(asynchronous, machine, what):
    with machine.connect("asynchronous", timeout=PATIENCE) as link:
        link.send(what)
        until(lambda: is_hung(asynchronous))
        asynchronous.kill()


def test_an_event_loop_that_sleeps_is_not_taken_for_hung(asynchronous, machine):
    with machine.connect("asynchronous", timeout=PATIENCE) as link:
        assert link.request(b"work", timeout=PATIENCE).payload == b"work"
        page = machine.watched(asynchronous.id)[1]
        until(lambda: not page.read().awake)
        before = page.read()
        pass_time(2 * WATCHDOG)
        assert not is_hung(asynchronous)
        assert page.read().heartbeat_ns == before.heartbeat_ns  # nor is it woken for this
