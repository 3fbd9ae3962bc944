"""A persistent machine whose host, zygote or both are killed: instances go on, and another host has them."""

from __future__ import annotations

import os
import select
import signal
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from multikernel.host.rundir import is_running, running
from tests.eventually import PATIENCE, until

from .killing import is_told, kill, victims, zygote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGES = Path(__file__).parent.parent / "images"

NEVER_LOOKS = """
import signal
def main(kernel):
    print("enters")
    while True:
        signal.pause()
"""
ENDS_WHEN_ASKED = """
import os, sys
def main(kernel):
    kernel.ready()
    for message in kernel.messages():
        message.reply(b"bye")
        print("its last words")
        os._exit(int(message.payload))
"""
CONNECTS = """
def main(kernel):
    for message in kernel.messages():
        link = kernel.connect(message.payload.decode(), capacity="64K")
        message.reply(link.request(b"hello").payload)
"""
ASYNCHRONOUS = """
async def main(kernel):
    async for message in kernel.messages():
        if message.payload == b"connect":
            link = await kernel.aconnect("echo", capacity="64K")
            message.reply((await link.arequest(b"by another host")).payload)
        else:
            message.reply(message.payload)
"""
HOLDS = """
import os
def kind(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}").partition(":[")[0]
    except OSError:  # the one that listed them
        return ""
def main(kernel):
    for message in kernel.messages():
        message.reply("\\n".join(filter(None, map(kind, os.listdir("/proc/self/fd")))).encode())
"""
READS_ITS_INPUT = """
import select
def main(kernel):
    for message in kernel.messages():
        message.reply(b"%d" % len(select.select([0], [], [], 0.02)[0]))
"""


@pytest.fixture
def machine(cpus: tuple[int, ...]) -> Iterator[mk.Machine]:
    """A persistent machine of the test's own."""
    with mk.Machine(cpus=cpus, memory="512M", name="lasting", persist=True) as machine:
        try:
            yield machine
        finally:
            machine.shutdown()


@pytest.fixture
def boot(machine: mk.Machine, tmp_path: Path) -> Callable[..., mk.Instance]:
    """Create, load and boot an instance, of source text or of an image's file."""

    def boot(name: str, image: str, cmdline: str = "") -> mk.Instance:
        path = IMAGES / image
        if "\n" in image:
            path = tmp_path / f"{name}.py"
            path.write_text(image)
        instance = machine.create(name, memory="64M", exclusive=False)
        instance.load(f"{path}:main", cmdline=cmdline)
        instance.boot(until="ready" if image != NEVER_LOOKS else "active")
        return instance

    return boot


@pytest.mark.parametrize("which", ["host", "zygote", "both"])
def test_instance_goes_on_and_is_supervised_by_whoever_takes_over(machine, boot, which):
    """Nothing is restarted: it is the very process, and its links do not notice."""
    web = boot("web", "echo.py")
    was = web.pid, web.epoch
    with machine.connect("web") as link:
        killed = machine.pid
        kill(*victims(machine, which))
        assert link.request(b"hostless", timeout=PATIENCE).payload == b"hostless"
        with machine.connect("web", timeout=PATIENCE) as another:
            assert another.request(b"of the next host", timeout=PATIENCE).payload == b"of the next host"
        assert (web.pid, web.epoch, web.state) == (*was, "active")
        assert (machine.pid == killed) == (which == "zygote")
        assert link.request(b"again", timeout=PATIENCE).payload == b"again"
    assert web.halt(timeout=PATIENCE) == mk.End("halted", 0, 0)
    assert (web.state, machine.proc.snapshot("instances/web/status")["epoch"]) == ("loaded", 1)


def test_instance_that_is_stopped_is_still_there_when_host_and_zygote_were_killed(machine, boot):
    web = boot("web", "echo.py")
    pid = web.pid
    with machine.connect("web") as link:
        os.kill(pid, signal.SIGSTOP)
        try:
            kill(*victims(machine, "both"))
        finally:
            os.kill(pid, signal.SIGCONT)
        assert link.request(b"still there?", timeout=PATIENCE).payload == b"still there?"
    assert (web.pid, web.state) == (pid, "active")


@pytest.mark.two_cpus
@pytest.mark.parametrize("rounds", [["host", "zygote", "both"]])
def test_stream_between_two_instances_loses_nothing(machine, boot, rounds):
    """DESIGN: no message passes through the host, so its end is none of theirs."""
    sink = boot("sink", "stream.py")
    source = boot("source", "stream.py", "to sink")
    with machine.connect("sink") as taken, machine.connect("source") as sent:
        before = 0
        for which in rounds:
            kill(*victims(machine, which))
            now = int(taken.request(b"?", timeout=PATIENCE).payload)
            while now == before:
                now = int(taken.request(b"?", timeout=PATIENCE).payload)
            before = now
        total = int(sent.request(b"stop", timeout=PATIENCE).payload)
        while int(taken.request(b"?", timeout=PATIENCE).payload) < total:
            pass
        assert int(taken.request(b"?", timeout=PATIENCE).payload) == total
    for instance in (sink, source):
        assert instance.epoch == 1
        assert instance.halt(timeout=PATIENCE).reason == "halted"


@pytest.mark.parametrize("which", ["host", "zygote", "both"])
def test_end_of_an_instance_under_the_next_host_is_told_with_its_status_and_last_words(machine, boot, which):
    """Though it is not the child of who is asked."""
    web = boot("web", ENDS_WHEN_ASKED)
    with machine.connect("web") as link:
        kill(*victims(machine, which))
        machine.connect("web", timeout=PATIENCE).close()  # so it has come to its host
        assert link.request(b"7", timeout=PATIENCE).payload == b"bye"
    end = web.wait(timeout=PATIENCE)
    assert (end.reason, end.code) == ("exit", 7) or (end.reason == "unknown" and not is_told(which))
    assert web.state == "failed"
    assert "its last words" in machine.proc["instances/web/console"]
    web.boot()
    assert (web.state, web.epoch) == ("active", 2)


def test_end_of_an_instance_without_a_host_is_told_by_the_zygote(machine, boot):
    """It has asked, and the next host gets the answer."""
    web = boot("web", "echo.py")
    kill(machine.pid, web.pid)
    assert web.wait(timeout=PATIENCE) == mk.End("signal", 0, signal.SIGKILL)
    web.boot()
    assert (web.state, web.epoch) == ("active", 2)


def test_end_that_nobody_saw_is_reported_as_unknown_and_the_image_is_gone_with_it(machine, boot):
    """Host, zygote and one instance are killed at once: another instance keeps the machine."""
    boot("other", "echo.py")
    web = boot("web", "echo.py")
    pid = web.pid
    kill(machine.pid, zygote(machine), pid)
    deadline = time.monotonic() + PATIENCE
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:  # init takes it, sooner or later
        select.select([], [], [], 0.01)
    assert web.wait(timeout=PATIENCE).reason == ("signal" if os.path.exists(f"/proc/{pid}") else "unknown")
    assert web.state == "ready"
    web.load(f"{IMAGES / 'echo.py'}:main")
    web.boot()
    assert web.epoch == 2


@pytest.mark.parametrize("which", ["host", "both"])
def test_instance_that_never_looks_is_seen_and_ended_by_the_next_host(machine, boot, which):
    """It may be busy for as long as it likes; nothing waits for it."""
    web = boot("web", NEVER_LOOKS)
    pid = web.pid
    kill(*victims(machine, which))
    with pytest.raises(mk.Timeout):
        web.halt(timeout=0.1, force=False)
    assert (web.pid, web.state) == (pid, "active")
    until(lambda: "enters" in machine.proc["instances/web/console"])
    end = web.kill()
    assert end == mk.End("killed", 0, signal.SIGKILL) or (end == mk.End("killed") and not is_told(which))


def test_halt_that_is_asked_for_before_the_instance_has_come_reaches_it(machine, boot):
    """The next host has it by its pid at once; it comes for its lane later."""
    web = boot("web", "echo.py")
    os.kill(web.pid, signal.SIGSTOP)
    try:
        kill(machine.pid)
        with pytest.raises(mk.Timeout):
            web.halt(timeout=0.1, force=False)
    finally:
        os.kill(web.pid, signal.SIGCONT)
    assert web.wait(timeout=PATIENCE).reason == "halted"


@pytest.mark.parametrize("which", ["host", "zygote", "both"])
def test_instances_that_do_not_run_are_kept_as_they_were(machine, boot, tmp_path, which):
    """Names, ids, cpus, memory, ends; and images, unless both are killed: those are nowhere else."""
    boot("keeper", CONNECTS)  # of another image: who has the same brings it back
    made = machine.create("made", memory="32M", exclusive=False, id=17)
    ended = boot("ended", "echo.py", "some words")
    ended.halt()
    console = machine.proc["instances/ended/console"]
    kill(*victims(machine, which))
    machine._membership.request("census", {})
    assert list(machine) == ["keeper", "ended", "made"]
    assert (made.id, made.state, made.memory) == (17, "ready", 32 << 20)
    assert ended.last_end == mk.End("halted", 0, 0)
    with pytest.raises(mk.ResourceError, match="taken"):
        machine.create("made", memory="32M")
    if which == "both":
        assert ended.state == "ready"
        return
    assert ended.state == "loaded"
    assert machine.proc["instances/ended/console"] == console
    ended.boot()
    assert (ended.state, ended.epoch) == ("active", 2)


def test_instances_connect_to_each_other_under_the_next_host(machine, boot):
    """What is asked for while there is no host is asked of the next one."""
    boot("db", "echo.py")
    boot("web", CONNECTS)
    with machine.connect("web") as link:
        kill(machine.pid)
        assert link.request(b"db", timeout=PATIENCE).payload == b"hello"


def test_booting_instance_ends_with_its_host_and_is_failed_then(machine, boot, tmp_path):
    """Nobody could be told that it had come up."""
    (tmp_path / "slow.py").write_text("import signal\nprint('importing')\nsignal.pause()\ndef main(kernel): pass\n")
    slow = machine.create("slow", memory="32M", exclusive=False)
    slow.load(f"{tmp_path / 'slow.py'}:main")
    other = mk.Machine.attach("lasting")
    try:
        other._membership._connection.tell(
            {
                "verb": "boot",
                "id": 99,
                "name": "slow",
                "instance": slow.id,
                "until": "active",
                "timeout": 60,
                "cold": False,
            }
        )
        while "importing" not in machine.proc.get("instances/slow/console", ""):
            machine._membership.request("census", {})
        kill(machine.pid)
        assert slow.wait(timeout=PATIENCE).reason == "signal"
        assert slow.state == "failed"
        assert "killed while it booted" in slow.last_end.traceback
    finally:
        other.close()


def test_reboot_that_is_under_way_is_gone_on_with_by_the_next_host(machine, boot):
    """Whoever has asked cannot be told; it is done all the same."""
    web = boot("web", "echo.py")
    os.kill(web.pid, signal.SIGSTOP)
    before = web.pid
    with mk.Machine.attach("lasting") as other:
        other._membership._connection.tell(
            {
                "verb": "reboot",
                "id": 99,
                "name": "web",
                "instance": web.id,
                "until": "active",
                "timeout": 60,
                "cold": False,
            }
        )
        while not machine.view.instance(web.id).due:
            machine._membership.request("census", {})
        kill(machine.pid)
    os.kill(before, signal.SIGCONT)
    deadline = time.monotonic() + PATIENCE
    while web.epoch < 2 or web.state != "active":
        machine._membership.request("census", {})
        assert time.monotonic() < deadline, web
    assert web.pid != before
    with machine.connect("web", timeout=PATIENCE) as link:
        assert link.request(b"after", timeout=PATIENCE).payload == b"after"


def test_one_that_was_asked_to_halt_is_not_restarted_by_the_next_host(machine, tmp_path):
    """An end that a user has asked for is none that its policy is for, though another host sees it."""
    web = machine.create("web", memory="32M", exclusive=False, restart="always")
    web.load(f"{IMAGES / 'echo.py'}:main")
    web.boot()
    os.kill(web.pid, signal.SIGSTOP)
    with pytest.raises(mk.Timeout):
        web.halt(timeout=0.1, force=False)
    kill(machine.pid)
    machine._membership.request("census", {})
    os.kill(web.pid, signal.SIGCONT)
    assert web.wait(timeout=PATIENCE).reason == "halted"
    assert (web.state, web.epoch, machine.view.instance(web.id).due) == ("loaded", 1, False)


@pytest.mark.parametrize("which", ["host", "both"])
def test_restart_that_is_due_comes_under_the_next_host(machine, boot, which):
    """The back-off goes on where it was."""
    boot("keeper", CONNECTS)  # of another image: who has the same brings it back
    policy = mk.Restart("always", delay=2.0, longest=2.0)  # long beside what comes before the host is killed
    web = machine.create("web", memory="32M", exclusive=False, restart=policy)
    web.load(f"{IMAGES / 'echo.py'}:main")
    web.boot()
    kill(web.pid)
    web.wait(timeout=PATIENCE)
    assert machine.view.instance(web.id).due
    kill(*victims(machine, which))
    if which == "both":  # its image is nowhere any more, and there is nothing to restart
        machine._membership.request("census", {})
        assert (web.state, machine.view.instance(web.id).due) == ("ready", False)
        return
    deadline = time.monotonic() + PATIENCE
    while web.epoch < 2 or web.state != "active":
        machine._membership.request("census", {})
        assert time.monotonic() < deadline, web


def test_many_hosts_one_after_the_other_leave_no_descriptor_in_an_instance(machine, boot):
    """Whatever a new host brings takes the place of what the old one had brought."""
    web = boot("web", HOLDS)
    with machine.connect("web") as link:

        def holds() -> Counter[str]:
            """What it holds, by kind, once it has looked at all of its links. It says so itself: it is closed to us."""
            for _ in range(20):
                link.request(b"look", timeout=PATIENCE)
            return Counter(link.request(b"", timeout=PATIENCE).payload.decode().split("\n"))

        def adopted() -> None:
            machine.connect("web", timeout=PATIENCE).close()

        kill(machine.pid)
        adopted()
        before = holds()
        for which in ("host", "both", "zygote", "host"):
            kill(*victims(machine, which))
        adopted()
        deadline = time.monotonic() + PATIENCE
        while (more := holds() - before) and time.monotonic() < deadline:
            pass
    assert not more
    assert web.epoch == 1


def test_clients_of_the_next_host_have_ids_of_their_own(machine):
    """Links know them by these."""
    first = machine._membership._client_id
    with mk.Machine.attach("lasting") as other:
        second = other._membership._client_id
    kill(machine.pid)
    machine._membership.request("census", {})
    assert machine._membership._client_id > max(first, second)


def test_process_that_says_it_is_an_instance_is_not_believed(machine, boot):
    """The host goes by the pid that the kernel tells, not by what is said."""
    web = boot("web", "echo.py")
    with pytest.raises(mk.NotFound, match="is not instance"):
        machine._membership.request("adopt", {"protocol": 1, "instance": web.id, "epoch": web.epoch})
    assert web.state == "active"


def test_machine_of_which_nothing_lives_is_gone(cpus):
    """Its files are removed by whoever looks next, and its name is free."""
    with mk.Machine(cpus=cpus, memory="64M", name="lasting", persist=True) as machine:
        kill(machine.pid, zygote(machine))
        with pytest.raises(mk.Closed, match="nothing of it lives"):
            machine.create("web", memory="32M")
    assert not is_running("lasting")
    assert running() == []


def test_name_of_a_machine_without_a_host_stays_taken(machine, boot, cpus):
    """Its instances live: who wants another machine of that name is told so, and who attaches gets it."""
    web = boot("web", "echo.py")
    kill(*victims(machine, "both"))
    assert is_running("lasting")
    with pytest.raises(mk.ResourceError, match="running already"):
        mk.Machine(cpus=cpus, memory="64M", name="lasting", persist=True)
    with mk.Machine.attach("lasting") as other:
        assert other["web"].pid == web.pid


@pytest.mark.parametrize("which", ["host", "both"])
def test_asynchronous_instance_is_served_by_the_next_host(machine, boot, which):
    web = boot("web", ASYNCHRONOUS)
    boot("echo", "echo.py")
    with machine.connect("web") as link:
        kill(*victims(machine, which))
        assert link.request(b"hostless", timeout=PATIENCE).payload == b"hostless"
        with machine.connect("web", timeout=PATIENCE) as another:
            assert another.request(b"connect", timeout=PATIENCE).payload == b"by another host"
        assert link.request(b"again", timeout=PATIENCE).payload == b"again"
    assert web.halt(timeout=PATIENCE) == mk.End("halted", 0, 0)


@pytest.mark.parametrize("which", ["host", "both"])
def test_input_of_an_instance_is_at_no_end_and_the_next_host_gives_it_out(machine, boot, which):
    """An image that reads a line must not take the host's end for one."""
    web = boot("web", READS_ITS_INPUT)
    with machine.connect("web") as link:
        kill(*victims(machine, which))
        assert link.request(b"anything?", timeout=PATIENCE).payload == b"0"
        machine.connect("web", timeout=PATIENCE).close()  # it has come to its next host then
        with web.attach() as typed:
            typed.write(b"x\n")
            assert link.request(b"anything?", timeout=PATIENCE).payload == b"1"
