"""Faults that an instance meets from outside: stopped, moved, dead and not reaped, its pid another's by now."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from tests.eventually import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


SERVES = """
    import os
    def main(kernel):
        for message in kernel.messages(copy=COPY):
            while WAITS_FOR and not os.path.exists(WAITS_FOR):
                pass
            message.reply(bytes(message.payload))
"""


@pytest.fixture
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="1G") as machine:
        yield machine


@pytest.fixture
def boot(machine: mk.Machine, tmp_path: Path) -> Callable[..., mk.Instance]:
    """Makes an active instance that answers; `busy`: not before a file is there, with its first message in hand."""

    def make(name: str = "web", *, copy: bool = True, busy: bool = False, **more: object) -> mk.Instance:
        instance = machine.create(name, **more)
        path = tmp_path / f"{name}.py"
        head = f"COPY, WAITS_FOR = {copy}, {str(tmp_path / 'go') if busy else ''!r}\n"
        path.write_text(head + textwrap.dedent(SERVES))
        instance.load(str(path))
        instance.boot(until="ready")
        return instance

    return make


def zygote_of(machine: mk.Machine) -> int:
    """The host's only child."""
    return int(Path(f"/proc/{machine.pid}/task/{machine.pid}/children").read_text().split()[0])


# --- stopped


@pytest.mark.parametrize("doing", ["parked", "spinning", "peeking"])
def test_stopped_peer_makes_sends_time_out_and_goes_on_with_all_of_it_when_it_is_continued(
    machine, boot, tmp_path, doing
):
    """Without a watchdog nobody calls it anything but active; its page says since when it has not looked."""
    web = boot(copy=doing != "peeking", busy=doing != "parked")
    with machine.connect("web", capacity="4K", timeout=PATIENCE) as link:
        if doing != "parked":
            link.send(b"first")
            until(lambda: machine.proc.snapshot("instances/web/status")["counters"]["parks"] >= 1)
        os.kill(web.pid, signal.SIGSTOP)
        sent = 0
        while link.try_send(b"%d" % sent):
            sent += 1
        began = time.monotonic()
        with pytest.raises(mk.Timeout):
            link.send(b"one more", timeout=0.1)
        assert 0.1 <= time.monotonic() - began < 2.0
        assert (web.state, web.last_end) == ("active", None)
        assert "HeartbeatAge:\t" in machine.proc["instances/web/status"]
        assert machine.proc.snapshot("instances/web/status")["heartbeat_age_ns"] >= 0.1e9
        (tmp_path / "go").touch()
        os.kill(web.pid, signal.SIGCONT)
        expected = [b"first"] if doing != "parked" else []
        expected += [b"%d" % i for i in range(sent)]
        assert [link.recv(timeout=PATIENCE).payload for _ in expected] == expected
    assert web.state == "active"


# --- moved


@pytest.mark.two_cpus
def test_instance_that_was_moved_off_its_cpus_is_shown_and_goes_on(machine, boot, cpus):
    web = boot(cpus=[cpus[0]])
    assert "Misplaced:\tno\n" in machine.proc["instances/web/status"]
    os.sched_setaffinity(web.pid, [cpus[1]])
    with machine.connect("web", timeout=PATIENCE) as link:
        assert link.request(b"hello", timeout=PATIENCE).payload == b"hello"
        until(lambda: machine.proc.snapshot("instances/web/status")["misplaced"])
        os.sched_setaffinity(web.pid, [cpus[0]])
        assert link.request(b"hello", timeout=PATIENCE).payload == b"hello"
        until(lambda: not machine.proc.snapshot("instances/web/status")["misplaced"])
    assert web.halt().reason == "halted"


# --- paused


def test_pause_of_the_whole_tree_loses_nothing_and_kills_nobody(machine, boot):
    web = boot(watchdog=0.5, on_hang="dump")
    tree = [machine.pid, zygote_of(machine), web.pid]
    with machine.connect("web", timeout=PATIENCE) as link:
        for pid in tree:
            os.kill(pid, signal.SIGSTOP)
        link.send(b"meanwhile")
        select.select([], [], [], 1.0)
        for pid in tree:
            os.kill(pid, signal.SIGCONT)
        assert link.recv(timeout=PATIENCE).payload == b"meanwhile"
    assert (web.state, web.epoch) == ("active", 1)
    assert machine.view.instance(web.id).supervised.hung_since_ns == 0


# --- dead


def test_dead_one_that_nobody_has_reaped_is_dead(machine, boot):
    """Its parent is stopped: it is a zombie, and the host has not been told. Its peers do not wait for that."""
    web = boot()
    zygote, pid = zygote_of(machine), web.pid
    with machine.connect("web", timeout=PATIENCE) as link:
        os.kill(zygote, signal.SIGSTOP)
        try:
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(mk.Closed):
                link.recv(timeout=PATIENCE)
            assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        finally:
            os.kill(zygote, signal.SIGCONT)
    assert web.wait(timeout=PATIENCE).signal == signal.SIGKILL
    assert web.state == "failed"


PID_REUSE = """
import os, signal, sys
import multikernel as mk

def becomes(pid):
    for _ in range(100):
        with open("/proc/sys/kernel/ns_last_pid", "w") as last:
            last.write(str(pid - 1))
        child = os.fork()
        if child == 0:
            signal.pause()
        if child == pid:
            return
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    sys.exit("no process got that pid")

open("image.py", "w").write("def main(kernel):\\n    for message in kernel.messages(): pass\\n")
with mk.Machine(memory="64M") as machine:
    web = machine.create("web", watchdog=0.1, on_hang="dump", restart=mk.Restart("on-failure", delay=600, longest=600))
    web.load("image.py")
    web.boot(until="ready")
    link, pid = machine.connect("web"), web.pid
    os.kill(pid, signal.SIGKILL)
    web.wait(timeout=20)
    becomes(pid)
    for step in (web.kill, web.boot, web.halt, web.delete):
        step()
    try:
        link.recv(timeout=20)
    except mk.Closed:
        pass
    link.close()
assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the newcomer was taken for the dead one"
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
print("spared")
"""


def test_process_that_got_a_dead_one_s_pid_is_left_alone(tmp_path):
    """Processes are known by pidfd. The namespace is there to choose pids in, and needs the right to make one."""
    new = ["unshare", "--pid", "--fork", "--mount-proc"]
    choose = [*new, "sh", "-c", "echo 9 > /proc/sys/kernel/ns_last_pid"]
    if subprocess.run(choose, capture_output=True, check=False).returncode:
        pytest.skip("this process may not make a pid namespace, or not choose pids in it")
    done = subprocess.run(
        [*new, sys.executable, "-c", PID_REUSE], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.stdout == "spared\n", done.stderr
