"""The view of instances that do not run, do not run any more, or do not do what they should."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from multikernel.proc.tree import Proc
from multikernel.shm.pages import End, InstanceRecord, MachineView

ACTIVE = InstanceRecord(1, "web", "active", pid=1, epoch=2, cpus=(0,))


def status_of(proc: Proc, name: str = "web") -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in proc[f"instances/{name}/status"].splitlines())  # type: ignore[arg-type]


def read_all(proc: Proc) -> None:
    for path in proc:
        assert isinstance(proc[path], str)
    assert proc.snapshot()


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


def test_an_instance_that_never_booted_says_so_with_the_same_lines(world):
    world.record(InstanceRecord(1, "web", "loaded"))
    world.record(InstanceRecord(2, "db", "active", epoch=1, pid=1))
    world.incarnate(2, 1)
    read_all(world.proc)
    never, running = status_of(world.proc), status_of(world.proc, "db")
    assert list(never) == list(running)
    assert (never["Epoch"], never["PageEpoch"], never["Phase"], never["Sent"], never["LastEnd"]) == ("0", *"----")
    assert world.proc.snapshot("interrupts")["instances"] == {"web": {}, "db": {}}


def test_a_stopped_instance_is_seen_as_it_was_and_its_heartbeat_gets_old(world):
    """Hung: it is there, active, and does nothing."""
    world.record(ACTIVE)
    process = world.spawn(1, 2, "status.beat(); status.ipi(3, 1)")
    stop(process)
    first = world.proc.snapshot("instances/web")
    read_all(world.proc)
    second = world.proc.snapshot("instances/web")
    assert first["status"]["state"] == second["status"]["state"] == "active"
    assert second["status"]["heartbeat_age_ns"] > first["status"]["heartbeat_age_ns"]
    assert second["interrupts"] == first["interrupts"]
    assert world.proc["instances/web/console"] == "booted\n"


def test_a_killed_instance_keeps_its_last_figures_and_words(world):
    world.record(ACTIVE)
    process = world.spawn(1, 2, "status.ipi(3, 1); console.write('printing\\n')")
    process.send_signal(signal.SIGKILL)
    process.wait()
    world.record(
        InstanceRecord(1, "web", "failed", epoch=2, end=End("signal", 0, 9), console_tail="what was in the pipe")
    )
    read_all(world.proc)
    its = status_of(world.proc)
    assert (its["State"], its["Pid"], its["Epoch"], its["PageEpoch"], its["Phase"]) == (
        "failed",
        "0",
        "2",
        "2",
        "active",
    )
    assert (its["LastEnd"], its["LastEndSignal"]) == ("signal", "9 (SIGKILL)")
    console = world.proc["instances/web/console"]
    assert console.startswith(("booted\n", "printing\n"))
    assert console.endswith("printing\nwhat was in the pipe") or console == "booted\nwhat was in the pipe"


HOST = """
from multikernel._core import ffi, lib
from multikernel.shm.pages import MachinePage, MachineRecord
page = MachinePage.create("demo")
page.write_machine(MachineRecord("demo", 1, cpus=(0, 1)))
records = [
    ffi.new("struct mk_instance_record *", {"used": 1, "id": 1, "name": b"web", "epoch": n, "memory": n * 1024})
    for n in (1, 2)
]
map = page._open()
lib.mk_py_write_instance(map, 1, records[0])
socket.send_fds(parent, [b"x"], [page.fd])
while True:
    for record in records:
        lib.mk_py_write_instance(map, 1, record)
"""


def test_a_host_killed_in_the_middle_of_a_change_leaves_a_view_that_says_so(world):
    """The last whole record is shown, marked as torn, and nobody waits."""
    host, fds = world.start(HOST)
    view = MachineView(fds[0])
    world.undo.callback(view.close)
    proc = Proc(view, {})
    for _ in range(2000):  # most of its time it is in the middle
        stop(host)
        its = status_of(proc)
        if "Torn" in its:
            break
        host.send_signal(signal.SIGCONT)
        while status_of(proc)["Epoch"] == its["Epoch"]:  # it runs again
            assert host.poll() is None
    else:
        pytest.fail("the host was never met in the middle of a change")
    host.send_signal(signal.SIGKILL)
    host.wait()
    read_all(proc)
    its = status_of(proc)
    assert its["Torn"] == "yes"
    assert (its["Epoch"], its["Memory"]) in (("1", "1 kB"), ("2", "2 kB"))
    assert proc.snapshot("instances/web/status")["torn"] is True


SCRIBBLER = """
from multikernel._core import ffi
from multikernel.shm.pages import Console, StatusPage
status, console = StatusPage.create(1, 2), Console.create(1, 2)
with open("/proc/self/maps") as maps:
    page = next(int(line.partition("-")[0], 16) for line in maps if "memfd:console" in line)
ffi.memmove(ffi.cast("char *", page + 128), b"\\xff" * 64, 64)
socket.send_fds(parent, [b"x"], [status.fd, console.fd])
parent.recv(1)
"""


def test_an_instance_that_scribbles_over_its_console_hides_nothing_else(world):
    world.record(ACTIVE)
    world.record(InstanceRecord(2, "db", "ready"))
    _, fds = world.start(SCRIBBLER)
    world.watch(1, 2, *fds)
    read_all(world.proc)
    assert "scribbled" in world.proc["instances/web/console"]
    assert list(world.proc.snapshot("instances")) == ["web", "db"]


# --- pages of another incarnation than the one that the host speaks of


def test_figures_of_the_incarnation_before_are_shown_as_such_and_its_words_are_not(world):
    """The new one has not made its pages yet, or ended before it could."""
    world.record(ACTIVE)
    status, console = world.incarnate(1, 2)
    status.ipi(1, 5)
    console.write("of the second\n")
    world.record(InstanceRecord(1, "web", "failed", epoch=3, end=End("boot", 1), console_tail="of the third\n"))
    its = status_of(world.proc)
    assert (its["Epoch"], its["PageEpoch"]) == ("3", "2")
    assert world.proc["instances/web/console"] == "of the third\n"


def test_the_last_words_of_the_one_before_are_not_those_of_a_running_one(world):
    world.record(InstanceRecord(1, "web", "active", pid=5, epoch=3, console_tail="of the second\n"))
    _, console = world.incarnate(1, 3)
    console.write("of the third\n")
    assert world.proc["instances/web/console"] == "of the third\n"


def test_an_incarnation_that_boots_while_the_view_is_read_is_the_one_that_is_shown(world):
    """Its pages may come after the host's record was read."""
    world.record(ACTIVE)
    world.incarnate(1, 3)
    newest = world.held[1]

    def find(_id: int):
        world.record(InstanceRecord(1, "web", "active", pid=2, epoch=3))
        return newest

    its = status_of(Proc(world.view, find))
    assert (its["Epoch"], its["PageEpoch"], its["Pid"]) == ("3", "3", "2")


def test_pages_of_a_deleted_instance_are_not_those_of_the_next_with_its_id(world):
    world.record(InstanceRecord(1, "new", "ready"))
    _, console = world.incarnate(1, 4)
    console.write("a secret of the one before\n")
    read_all(world.proc)
    assert status_of(world.proc, "new")["PageEpoch"] == "-"
    assert world.proc["instances/new/console"] == ""


def test_an_instance_whose_pages_have_not_come_is_not_said_to_have_had_no_interrupts(world):
    world.record(ACTIVE)
    read_all(world.proc)
    assert world.proc.snapshot("interrupts")["instances"] == {"web": None}
    assert world.proc["interrupts"].split() == ["web", "TOT:", "-"]
