"""What an instance leaves that dies by itself, and who gets to see it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from multikernel.host import core_file, crash_sink
from multikernel.host.oom import OomKills
from multikernel.shm.lane_look import Lane
from tests.eventually import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


DIES = """
    import ctypes, os, resource, signal, sys, threading

    def waits_for_ever():
        threading.Event().wait()

    def main(kernel):
        print("serving")
        threading.Thread(target=waits_for_ever, daemon=True).start()
        for message in kernel.messages():
            deal_with(message)

    def deal_with(message):
        how = message.payload.decode()
        if how == "raise":
            raise LookupError("on purpose")
        if how == "exit":
            os._exit(7)
        if how == "fault":
            ctypes.string_at(0)
        if how == "memory":
            resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
            bytearray(1 << 40)
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        message.reply(b"")
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="1G") as machine:
        yield machine


@pytest.fixture
def web(machine: mk.Machine, tmp_path: Path, monkeypatch) -> Iterator[Callable[..., mk.Instance]]:
    """Makes an instance called web that dies as it is told to; its directory is an empty one."""
    monkeypatch.chdir(tmp_path)

    def make(source: str = DIES, **policy: object) -> mk.Instance:
        web = machine.create("web", **policy)
        (tmp_path / "image.py").write_text(textwrap.dedent(source))
        web.load("image.py", cmdline="a=1")
        web.boot()
        return web

    yield make
    if "web" in machine:
        machine["web"].delete()


def die(web: mk.Instance, how: str) -> mk.Panic:
    """Have it deal with one message, and die of the next, another behind that."""
    with web.machine.connect("web", timeout=PATIENCE) as link:
        link.request(b"well", timeout=PATIENCE)
        link.send_many([how.encode(), b"never seen"], subtype=9)
        web.wait(timeout=PATIENCE)
    panic = web.panic
    assert panic is not None
    return panic


@pytest.mark.parametrize(
    ("how", "reason", "cause", "code", "number"),
    [
        ("raise", "exception", "LookupError: on purpose", 1, 0),
        ("exit", "exit", "it exited with status 7", 7, 0),
        ("fault", "signal", "signal 11 (SIGSEGV)", 0, signal.SIGSEGV),
        ("killed", "signal", "signal 9 (SIGKILL)", 0, signal.SIGKILL),
        ("memory", "memory", "out of memory: MemoryError", 1, 0),
    ],
)
def test_report_says_why_it_died_and_what_it_was_dealing_with(web, how, reason, cause, code, number):
    it = web()
    panic = die(it, how)
    assert (panic.reason, panic.cause, panic.code, panic.signal) == (reason, cause, code, number)
    assert (it.last_end.reason, it.state) == (reason, "failed")
    assert (panic.name, panic.id, panic.epoch, panic.cpus, panic.cmdline) == ("web", it.id, 1, it.cpus, "a=1")
    assert [(each.subtype, each.length) for each in panic.messages] == [(9, len(how)), (9, len(b"never seen"))]
    assert panic.counters.received == 1
    assert panic.console.startswith("serving\n")
    assert 0 < panic.ran < PATIENCE


def test_report_of_a_fatal_signal_has_the_stack_of_every_thread(web):
    it = web()
    panic = die(it, "fault")
    assert panic.threads.startswith("Fatal Python error: Segmentation fault")
    assert "in deal_with" in panic.threads
    assert "in waits_for_ever" in panic.threads
    assert "Segmentation fault" not in panic.console  # once is enough
    assert it.machine.view.instance(it.id).console_tail.startswith("Fatal Python error: Segmentation fault")


def test_report_of_an_exception_has_its_traceback_and_what_the_other_threads_did(web):
    panic = die(web(), "raise")
    assert panic.traceback.endswith("LookupError: on purpose\n")
    assert "in deal_with" in panic.traceback
    assert "in waits_for_ever" in panic.threads


def test_boot_that_fails_leaves_a_report(web, machine):
    with pytest.raises(mk.BootError):
        web("import no_such_module")
    panic = machine["web"].panic
    assert (panic.reason, panic.messages) == ("boot", ())
    assert panic.cause == "its boot failed: ModuleNotFoundError: No module named 'no_such_module'"


@pytest.mark.parametrize("end", ["halt", "kill"])
def test_what_somebody_ends_leaves_no_report(web, end):
    it = web()
    getattr(it, end)()
    assert it.panic is None
    assert it.machine.proc["instances/web/panic"] == ""
    assert it.machine.proc.snapshot("instances/web/panic") is None


def test_report_is_in_the_view_and_passes_json(web):
    it = web()
    panic = die(it, "raise")
    proc = it.machine.proc
    assert proc["instances/web/panic"] == panic.text()
    assert panic.text().startswith(
        f"Kernel panic: web (id {it.id}, epoch 1, pid {panic.pid}): LookupError: on purpose\n"
    )
    values = json.loads(json.dumps(proc.snapshot("instances/web/panic")))
    assert mk.Panic.from_json(values) == panic
    with pytest.raises(ValueError, match="no panic report"):
        mk.Panic.from_json({**values, "counters": None})
    with pytest.raises(dataclasses.FrozenInstanceError):
        panic.reason = "none"


def test_report_stays_until_the_next_death_and_goes_with_the_instance(web, machine):
    it = web()
    first = die(it, "exit")
    it.boot()
    assert it.panic == first
    assert die(it, "raise").epoch == 2
    before = machine._membership.request("census", {})
    it.delete()
    after = machine._membership.request("census", {})
    assert after["descriptors"] == before["descriptors"] - 4  # image, two pages, report


def test_report_reaches_who_joins_later_and_stays_readable_while_the_host_is_stopped(web, machine):
    it = web()
    panic = die(it, "exit")
    with mk.Machine.attach(machine.name) as other:
        os.kill(machine.pid, signal.SIGSTOP)
        try:
            assert other["web"].panic == panic
        finally:
            os.kill(machine.pid, signal.SIGCONT)


def test_what_faulthandler_may_write_is_bounded():
    fd = crash_sink.make("web")
    try:
        os.write(fd, b"x" * 1000)
        assert crash_sink.read(fd) == "x" * 1000
        with pytest.raises(OSError, match="not permitted"):
            os.pwrite(fd, b"x", crash_sink.SIZE)
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(fd, 2 * crash_sink.SIZE)
    finally:
        os.close(fd)


def test_headers_that_cannot_be_end_the_list():
    """What is read from a lane is input: garbage in it is never followed out of it."""
    producer, consumer = os.memfd_create("producer"), os.memfd_create("consumer")
    try:
        lane = Lane(producer, consumer, 4096, 512)
        for fd in (producer, consumer):
            os.ftruncate(fd, 8192)
        assert lane.unread(64) == []
        os.pwrite(producer, b"\xff" * 8, 128)  # head before tail
        assert lane.unread(64) == []
        os.pwrite(producer, (4096).to_bytes(8, "little"), 128)
        assert len(lane.unread(64)) == 64  # records of length 0
        os.pwrite(producer, b"\xff" * 4, 4096)  # a length beyond head
        assert lane.unread(64) == []
    finally:
        os.close(producer)
        os.close(consumer)


# --- core files


def test_core_file_is_where_the_report_says_or_it_says_why_there_is_none(web, machine, tmp_path):
    it = web(core=True)
    assert "Protection:\tcore: open to this user's debuggers\n" in machine.proc["instances/web/status"]
    panic = die(it, "fault")
    if panic.core_file:
        assert Path(panic.core_file).read_bytes()[:4] == b"\x7fELF"
        assert panic.core == panic.core_file
        Path(panic.core_file).unlink()
    else:
        assert "core_pattern" in panic.core or "ulimit" in panic.core


def test_instance_is_closed_to_others_unless_it_was_made_with_core(web, machine):
    it = web()
    assert "Protection:\tclosed to others of this user\n" in machine.proc["instances/web/status"]
    assert die(it, "fault").core == "none: it was created without core=True"


def test_name_of_a_core_file_is_found_by_its_pattern(tmp_path):
    assert core_file._as_glob("core.%e.%p%%", {"p": "12", "%": "%"}) == "core.*.12%"
    assert core_file._as_glob("/tmp/[x]%s", {"s": "11"}) == "/tmp/[[]x]11"


# --- out of memory


def test_kill_that_the_memory_cgroup_counts_is_told_once(tmp_path):
    """The counter is the system's; here is one in its form, since a test cannot have the system run out of memory."""
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 3\noom_kill 3\n")
    kills = OomKills(str(events))
    assert not kills.take()
    events.write_text("low 0\noom 4\noom_kill 5\n")
    assert [kills.take() for _ in range(3)] == [True, True, False]
    events.unlink()
    assert not kills.take()
    assert not OomKills(None).take()
