"""The crash image: it boots in the place of an instance that has died, with its report at hand."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from tests.eventually import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable


DIES = """
    import os, signal

    def main(kernel):
        for message in kernel.messages():
            if message.payload == b"die":
                raise LookupError("on purpose")
            if message.payload == b"return":
                return 0
            message.reply(b"%d alive" % kernel.epoch)
"""
WATCHES = """
    import json, os

    def main(kernel):
        said = [kernel.panic.name, kernel.panic.epoch, kernel.panic.cause, [m.length for m in kernel.panic.messages]]
        print(json.dumps([*said, kernel.epoch, sorted(os.sched_getaffinity(0)), kernel.cmdline]), flush=True)
        for message in kernel.messages():
            message.reply(b"crashed")
"""
WRITES = """
    def main(kernel):
        print(kernel.panic.text())
"""
FAILS = """
    def main(kernel):
        raise MemoryError
"""


@pytest.fixture
def web(create: Callable[..., mk.Instance], load: Callable[..., None]) -> Callable[..., mk.Instance]:
    """Makes an instance called web that dies as it is told to, with a crash image of that source."""

    def make(crash_source: str, **policy: object) -> mk.Instance:
        web = create(**policy)
        load(web, crash_source, "crash.py", cmdline="dump=here", panic=True)
        assert web.state == "ready"
        load(web, DIES)
        web.boot()
        return web

    return make


def tell(web: mk.Instance, what: bytes) -> None:
    with web.machine.connect("web", timeout=PATIENCE) as link:
        link.send(what)
        web.wait(timeout=PATIENCE)


def status(web: mk.Instance) -> dict[str, object]:
    return web.machine.proc.snapshot("instances/web/status")


def test_crash_image_boots_on_the_same_cpus_with_the_dead_one_s_report(web, machine):
    it = web(WATCHES)
    assert str(status(it)["crash_image"]).endswith("crash.py")
    assert not status(it)["crashed"]
    tell(it, b"die")
    until(lambda: (it.state, it.epoch) == ("active", 2))
    with machine.connect("web", timeout=PATIENCE) as link:
        assert link.request(b"", timeout=PATIENCE).payload == b"crashed"
    until(lambda: machine.proc["instances/web/console"].endswith("\n"))
    said = json.loads(machine.proc["instances/web/console"])
    assert said == ["web", 1, "LookupError: on purpose", [3], 2, list(it.cpus), "dump=here"]
    assert status(it)["crashed"]
    assert (it.last_end.reason, it.panic.epoch) == ("exception", 1)


def test_instance_is_failed_with_the_dead_one_s_end_when_its_crash_image_is_done(web):
    it = web(WRITES)
    tell(it, b"die")
    until(lambda: (it.state, it.epoch, it.pid) == ("failed", 2, 0))
    assert it.wait() == it.last_end
    assert (it.last_end.reason, it.panic.epoch, status(it)["crashed"]) == ("exception", 1, False)
    assert it.machine.proc["instances/web/console"] == f"{it.panic.text()}\n"
    it.boot()
    assert it.epoch == 3


def test_crash_image_that_fails_itself_is_not_booted_again_and_the_report_is_the_first(web):
    it = web(FAILS)
    tell(it, b"die")
    until(lambda: (it.state, it.epoch, it.pid) == ("failed", 2, 0))
    assert (it.panic.epoch, it.panic.cause) == (1, "LookupError: on purpose")


def test_policy_restarts_the_instance_after_its_crash_image(web, machine):
    it = web(WRITES, restart=mk.Restart("on-failure", delay=0.001))
    tell(it, b"die")
    until(lambda: (it.state, it.epoch) == ("active", 3))
    with machine.connect("web", timeout=PATIENCE) as link:
        assert link.request(b"", timeout=PATIENCE).payload == b"3 alive"


def test_hung_one_s_crash_image_comes_before_its_reboot(web):
    it = web(WRITES, watchdog=0.3, on_hang="reboot")
    with it.machine.connect("web", timeout=PATIENCE) as link:
        link.request(b"", timeout=PATIENCE)
        os.kill(it.pid, signal.SIGSTOP)
        link.send(b"")
        until(lambda: (it.state, it.epoch) == ("active", 3))
    assert (it.last_end.reason, it.panic.reason, it.panic.epoch) == ("watchdog", "watchdog", 1)


@pytest.mark.parametrize("end", ["halt", "kill", "return"])
def test_crash_image_does_not_boot_when_nothing_died(web, end):
    it = web(WATCHES)
    if end == "return":
        tell(it, b"return")
    else:
        getattr(it, end)()
    assert (it.state, it.epoch, status(it)["restart_in_ns"]) == ("loaded", 1, None)


@pytest.mark.parametrize("end", ["halt", "kill"])
def test_crash_image_is_ended_by_who_wants_that_and_nothing_follows(web, end):
    it = web(WATCHES, restart=mk.Restart("always", delay=0.001))
    tell(it, b"die")
    until(lambda: (it.state, it.epoch) == ("active", 2))
    getattr(it, end)()
    assert (it.state, it.epoch, it.last_end.reason) == ("loaded", 2, "halted" if end == "halt" else "killed")


def test_crash_image_may_be_loaded_while_the_instance_runs_and_is_replaced_by_the_next(web, machine, load):
    it = web(FAILS)
    load(it, WATCHES, "other.py", panic=True)
    assert it.state == "active"
    assert len(machine.proc.snapshot("kimages")) == 2
    tell(it, b"die")
    until(lambda: (it.state, it.epoch) == ("active", 2))
    with machine.connect("web", timeout=PATIENCE) as link:
        assert link.request(b"", timeout=PATIENCE).payload == b"crashed"


def test_crash_image_counts_in_the_budget(machine, tmp_path):
    small = machine.create("web2", memory="256K")
    (tmp_path / "image.py").write_text("#" * 70_000 + "\ndef main(kernel): pass\n")
    small.load(str(tmp_path / "image.py"))
    with pytest.raises(mk.ImageError, match=r"beside .*image.py' \(.*\), which is loaded too, does not fit"):
        small.load(str(tmp_path / "image.py"), panic=True)
    assert small.state == "loaded"
    small.delete()
