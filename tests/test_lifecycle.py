"""What an instance can be asked to do, in each of its states; how it ends; and that nothing is left."""

from __future__ import annotations

import math
import os
import select
import signal
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from multikernel.host import address
from multikernel.host.rundir import RunDir
from multikernel.host.states import STEPS
from tests.eventually import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from multikernel.shm.channel import Channel


IMAGES = {
    "serves": """
        def main(kernel):
            for message in kernel.messages():
                message.reply(message.payload)
    """,
    "returns": "def main(kernel): pass",
    "returns 3": "def main(kernel): return 3",
    "returns a text": "def main(kernel): return 'done'",
    "returns True": "def main(kernel): return True",
    "raises": """
        def main(kernel):
            print("before")
            raise LookupError("on purpose")
    """,
    "raises on import": """
        print("importing")
        raise LookupError("on purpose")
    """,
    "has no main": "def other(kernel): pass",
    "exits with 4": """
        import sys
        def main(kernel): sys.exit(4)
    """,
    "exits with a text": """
        import sys
        def main(kernel): sys.exit("good bye")
    """,
    "exits at once": """
        import os
        def main(kernel): os._exit(5)
    """,
    "crashes": """
        import os, signal
        def main(kernel): os.kill(os.getpid(), signal.SIGSEGV)
    """,
    "crashes on import": """
        import os, signal
        print("importing")
        os.kill(os.getpid(), signal.SIGSEGV)
    """,
    "never looks": """
        import signal
        def main(kernel):
            while True:
                signal.pause()
    """,
    "hangs on import": """
        import signal
        print("importing")
        signal.pause()
    """,
    "returns before it is ready": "def main(kernel): return 0",
    "raises when halted": """
        def main(kernel):
            for message in kernel.messages(): pass
            raise LookupError("on purpose")
    """,
    "says what it is": """
        import os, sys, signal, threading
        def main(kernel):
            print(kernel.name, kernel.id, kernel.epoch, kernel.machine, kernel.cpus, kernel.budget, kernel.cmdline)
            print(dict(kernel.params))
            print(sorted(os.sched_getaffinity(0)), os.getcwd(), threading.active_count())
            print(sorted(os.listdir("/proc/self/fd"), key=int))
            print([int(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGCHLD)], signal.pthread_sigmask(0, []))
            status = open("/proc/self/status").read().split("\\n")
            print([line for line in status if line.startswith(("Name", "NoNewPrivs"))])
    """,
    "has children": """
        import subprocess, sys
        def main(kernel):
            sleeper = [sys.executable, "-c", "import signal; signal.pause()"]
            child = subprocess.Popen(sleeper)
            for message in kernel.messages():
                message.reply(str(child.pid).encode())
    """,
    "has a daemon": """
        import subprocess, sys
        def main(kernel):
            sleeper = [sys.executable, "-c", "import signal; signal.pause()"]
            child = subprocess.Popen(sleeper, start_new_session=True)
            for message in kernel.messages():
                message.reply(str(child.pid).encode())
    """,
    "talks nonsense to its host": """
        import os
        def main(kernel):
            fd = os.memfd_create("nonsense")
            for verb in ("hello", "linked", "refused", "connect", "phase", None, "no such verb"):
                kernel._host.control.send({"verb": verb, "id": 1, "link": 1, "to": 5, "epoch": "x"}, [fd] * 3)
            kernel.ready()
            for message in kernel.messages():
                message.reply(message.payload)
    """,
    "is no instance at all": """
        import os, socket, signal
        def main(kernel):
            kernel.ready()
            socket.socket(fileno=os.dup(kernel._host.control.fileno())).send(b"{")
            while True:
                signal.pause()
    """,
    "prints at its exit": """
        import atexit, threading
        def main(kernel):
            atexit.register(print, "at exit")
            threading.Thread(target=print, args=["in a thread"]).start()
    """,
}


@pytest.fixture(scope="module")
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="1G") as machine:
        yield machine
        assert RunDir(machine.name).log_path.read_text() == ""  # the host had nothing to complain of


@pytest.fixture
def image(tmp_path: Path) -> Callable[[str], str]:
    """The path of an image that does what it is called."""

    def write(what: str) -> str:
        path = tmp_path / f"{what.replace(' ', '_')}.py"
        path.write_text(textwrap.dedent(IMAGES[what]))
        return f"{path}:main"

    return write


@pytest.fixture
def web(machine: mk.Machine) -> Iterator[mk.Instance]:
    web = machine.create("web")
    yield web
    if web.state == "active":
        web.kill()
    web.delete()


class Asker:
    """Another client, that does not wait for its answer."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def begin(self, verb: str, **fields: object) -> None:
        """Ask, and return when the host works on it."""
        self.channel.send({"verb": verb, "id": verb, **fields})
        self.channel.send({"verb": "census", "id": "begun"})
        assert self.answer()["answer"] == "begun"

    def answer(self) -> dict:
        return self.channel.receive(timeout=PATIENCE)[0]


@pytest.fixture
def asker(machine: mk.Machine) -> Iterator[Asker]:
    with address.connect(RunDir(machine.name)) as channel:
        yield Asker(channel)


def bring(web: mk.Instance, state: str, image: Callable[[str], str]) -> None:
    """Have the instance be in `state`."""
    if state != "ready":
        web.load(image("crashes on import" if state == "failed" else "serves"))
    if state == "active":
        web.boot()
    if state == "failed":
        with pytest.raises(mk.BootError):
            web.boot()
        web.load(image("serves"))
        web.boot()
        os.kill(web.pid, signal.SIGKILL)
        web.wait(timeout=PATIENCE)
    assert web.state == state


def take(web: mk.Instance, step: str, image: Callable[[str], str]) -> None:
    {
        "load": lambda: web.load(image("serves")),
        "load --panic": lambda: web.load(image("serves"), panic=True),
        "boot": web.boot,
        "reboot": web.reboot,
        "halt": web.halt,
        "kill": web.kill,
        "unload": web.unload,
        "delete": web.delete,
    }[step]()


# --- the table


def test_a_time_out_that_is_none_is_refused_at_once_and_nothing_is_done(machine, web, image):
    """A negative one was taken for a host that does not answer."""
    web.load(image("serves"))
    for steps in (web.boot, web.reboot, web.halt, web.wait, lambda timeout: machine.connect("web", timeout=timeout)):
        for timeout, error in ((-100, ValueError), (math.nan, ValueError), ("1", TypeError), (True, TypeError)):
            with pytest.raises(error, match="a number of seconds"):
                steps(timeout=timeout)
    assert web.state == "loaded"
    web.boot(timeout=math.inf)
    web.halt(timeout=math.inf)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("state", ["ready", "loaded", "active", "failed"])
def test_step_leads_where_the_table_says_or_is_refused_and_changes_nothing(machine, image, state, step):
    web = machine.create("web")
    bring(web, state, image)
    before = machine.view.instance(web.id)
    if state in STEPS[step].legal:
        take(web, step, image)
        leads_to = state if STEPS[step].leads_to == "unchanged" else STEPS[step].leads_to
        assert [each.state for each in machine.view.instances()] == ([leads_to] if leads_to else [])
    else:
        with pytest.raises(mk.StateError, match=f"cannot {step} 'web': it is {state}. Legal now: ") as caught:
            take(web, step, image)
        assert caught.value.state == state
        assert set(caught.value.legal) == {name for name, each in STEPS.items() if state in each.legal}
        assert machine.view.instance(web.id) == before
    if "web" in machine:
        if web.state == "active":
            web.kill()
        web.delete()


def test_boot_before_load_is_refused(web):
    with pytest.raises(mk.StateError, match=r"cannot boot 'web': it is ready. Legal now: load, delete"):
        web.boot()


def test_instance_boots_again_after_each_kind_of_end(web, image):
    web.load(image("serves"))
    for epoch, end in enumerate((web.halt, web.kill, lambda: os.kill(web.pid, signal.SIGKILL)), start=1):
        web.boot()
        assert web.epoch == epoch
        end()
        web.wait(timeout=PATIENCE)
    assert web.state == "failed"
    web.boot()
    assert web.halt().reason == "halted"


def test_load_replaces_the_image_and_what_was_loaded_is_what_boots(web, tmp_path):
    path = tmp_path / "image.py"
    path.write_text("def main(kernel): return 1\n")
    web.load(f"{path}:main")
    path.write_text("def main(kernel): return 2\n")
    web.boot()
    assert web.wait(timeout=PATIENCE).code == 1
    web.load(f"{path}:main")
    path.unlink()
    web.boot()
    assert web.wait(timeout=PATIENCE).code == 2


# --- how it ends


@pytest.mark.parametrize(
    ("what", "reason", "code", "number", "state"),
    [
        ("returns", "returned", 0, 0, "loaded"),
        ("returns 3", "returned", 3, 0, "failed"),
        ("raises", "exception", 1, 0, "failed"),
        ("returns a text", "exception", 1, 0, "failed"),
        ("returns True", "exception", 1, 0, "failed"),
        ("exits with 4", "exit", 4, 0, "failed"),
        ("exits with a text", "exit", 1, 0, "failed"),
        ("exits at once", "exit", 5, 0, "failed"),
        ("crashes", "signal", 0, signal.SIGSEGV, "failed"),
    ],
)
def test_end_of_main_is_told_and_leads_to_its_state(web, image, what, reason, code, number, state):
    web.load(image(what))
    web.boot()
    end = web.wait(timeout=PATIENCE)
    assert (end.reason, end.code, end.signal, end.forced) == (reason, code, number, False)
    assert web.state == state
    assert web.pid == 0
    assert web.last_end == end


def test_exception_of_main_is_on_the_console_with_the_image_s_frames_only(machine, web, image):
    web.load(image("raises"))
    web.boot()
    end = web.wait(timeout=PATIENCE)
    assert end.traceback.startswith("Traceback (most recent call last):\n")
    assert end.traceback.endswith("LookupError: on purpose\n")
    assert 'raise LookupError("on purpose")' in end.traceback
    assert "boot.py" not in end.traceback
    assert machine.proc["instances/web/console"] == f"before\n{end.traceback}"


def test_what_is_printed_at_the_very_end_is_on_the_console(machine, web, image):
    web.load(image("prints at its exit"))
    web.boot()
    assert web.wait(timeout=PATIENCE).reason == "returned"
    assert sorted(machine.proc["instances/web/console"].splitlines()) == ["at exit", "in a thread"]


def test_halt_returns_how_it_ended(web, image):
    web.load(image("serves"))
    web.boot()
    assert web.halt() == mk.End("halted")
    assert web.state == "loaded"


def test_halt_of_one_that_raises_on_its_way_out_says_so_and_leads_to_loaded(web, image):
    web.load(image("raises when halted"))
    web.boot()
    end = web.halt()
    assert end.reason == "exception"
    assert "on purpose" in end.traceback
    assert web.state == "loaded"


def test_halt_that_takes_too_long_is_forced_and_says_so(web, image):
    web.load(image("never looks"))
    web.boot()
    assert web.halt(timeout=0.1) == mk.End("halted", 0, signal.SIGKILL, "", forced=True)
    assert web.state == "loaded"


def test_halt_without_force_times_out_and_the_instance_stays_active(web, image):
    web.load(image("never looks"))
    web.boot()
    pid = web.pid
    with pytest.raises(mk.Timeout, match=r"has not halted within 0.1 s and stays active"):
        web.halt(timeout=0.1, force=False)
    assert (web.state, web.pid) == ("active", pid)
    assert web.halt(timeout=0.1).forced


def test_kill_ends_one_that_does_not_look_at_once(web, image):
    web.load(image("never looks"))
    web.boot()
    assert web.kill() == mk.End("killed", 0, signal.SIGKILL)
    assert web.state == "loaded"


def test_kill_ends_a_stopped_one(web, image):
    web.load(image("serves"))
    web.boot()
    os.kill(web.pid, signal.SIGSTOP)
    assert web.kill().reason == "killed"


def test_kill_ends_a_halt_that_waits(web, image, asker):
    web.load(image("never looks"))
    web.boot()
    asker.begin("halt", name="web", instance=web.id, timeout=600, force=True)
    assert web.kill() == mk.End("killed", 0, signal.SIGKILL)
    assert asker.answer()["ok"]["end"]["reason"] == "killed"


def test_step_waits_for_the_one_before_it_and_then_finds_the_state_that_left(web, image, asker):
    web.load(image("never looks"))
    web.boot()
    asker.begin("halt", name="web", instance=web.id, timeout=0.2, force=True)
    web.boot()  # illegal while it is active, and would be refused at once
    assert asker.answer()["ok"]["end"]["forced"]
    assert web.epoch == 2


def test_step_does_not_wait_for_another_longer_than_its_own_time(web, image, asker):
    web.load(image("never looks"))
    web.boot()
    asker.begin("halt", name="web", instance=web.id, timeout=600, force=True)
    with pytest.raises(mk.Timeout, match="'web' is in the middle of another step"):
        web.halt(timeout=0.1)
    assert web.state == "active"
    web.kill()
    assert asker.answer()["ok"]


def test_reboot_puts_a_new_incarnation_in_the_place_of_the_old_one(machine, web, image):
    web.load(image("serves"))
    web.boot()
    pid = web.pid
    web.reboot(until="ready")
    assert (web.state, web.epoch) == ("active", 2)
    assert web.pid != pid
    assert web.last_end == mk.End("halted")
    with machine.connect("web") as link:
        assert link.request(b"still there?").payload == b"still there?"


def test_reboot_kills_what_does_not_halt_in_half_of_its_time(web, image):
    web.load(image("never looks"))
    web.boot()
    web.reboot(timeout=4.0)
    assert (web.state, web.epoch) == ("active", 2)
    assert web.last_end == mk.End("halted", signal=signal.SIGKILL, forced=True)


def test_kill_wins_over_a_reboot_that_waits(web, image, asker):
    web.load(image("never looks"))
    web.boot()
    asker.begin("reboot", name="web", instance=web.id, until="active", timeout=40.0)
    assert web.kill().reason == "killed"
    assert asker.answer()["failed"]["error"] == "StateError"
    assert (web.state, web.epoch, web.pid) == ("loaded", 1, 0)


def test_reboot_into_an_image_that_fails_leaves_no_wait_for_a_successor(web, image):
    web.load(image("serves"))
    web.boot()
    web.kill()
    web.load(image("crashes on import"))
    with pytest.raises(mk.BootError):
        web.boot()
    with pytest.raises(mk.BootError, match="signal 11 ended it"):
        web.reboot()
    assert (web.state, web.epoch) == ("failed", 3)


def test_wait_for_one_that_goes_on_times_out(web, image):
    web.load(image("serves"))
    web.boot()
    with pytest.raises(mk.Timeout, match=r"'web' goes on after 0.05 s"):
        web.wait(timeout=0.05)


def test_wait_for_one_that_never_ran_is_refused(web):
    with pytest.raises(mk.StateError, match="cannot wait for 'web': it is ready"):
        web.wait()


def test_several_may_wait_for_the_same_end(web, image):
    web.load(image("never looks"))
    web.boot()
    ends = []
    waiting = [threading.Thread(target=lambda: ends.append(web.wait(timeout=PATIENCE))) for _ in range(4)]
    for each in waiting:
        each.start()
    web.kill()
    for each in waiting:
        each.join()
    assert {end.reason for end in ends} == {"killed"}
    assert len(ends) == 4


def child_of(machine: mk.Machine) -> int:
    """A pidfd of the child that `web` has started, and tells everybody who asks."""
    with machine.connect("web", timeout=PATIENCE) as link:
        return os.pidfd_open(int(link.request(b"", timeout=PATIENCE).payload))


def assert_ends(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    ended = poll.poll(PATIENCE * 1000)
    os.close(pidfd)
    assert ended


def test_what_it_has_started_ends_with_it(machine, web, image):
    web.load(image("has children"))
    web.boot()
    child = child_of(machine)
    web.kill()
    assert_ends(child)


def test_what_left_its_group_ends_with_the_machine(image):
    with mk.Machine(memory="64M") as own:
        web = own.create("web")
        web.load(image("has a daemon"))
        web.boot()
        daemon = child_of(own)
    assert_ends(daemon)


def test_nonsense_from_an_instance_is_no_harm(machine, web, image):
    before = machine._membership.request("census", {})
    web.load(image("talks nonsense to its host"))
    web.boot(until="ready")
    with machine.connect("web", timeout=PATIENCE) as link:
        assert link.request(b"hello", timeout=PATIENCE).payload == b"hello"
    assert web.halt().reason == "halted"
    web.unload()
    kept = before["descriptors"] + 2  # the last incarnation's pages
    until(lambda: machine._membership.request("census", {})["descriptors"] == kept)


def test_instance_that_does_not_keep_to_the_protocol_is_ended_and_the_reason_kept(web, image):
    web.load(image("is no instance at all"))
    web.boot()
    end = web.wait(timeout=PATIENCE)
    assert end.signal == signal.SIGKILL
    assert "ended by the host: a document that is not JSON" in end.traceback
    assert web.state == "failed"


# --- boots that fail


@pytest.mark.parametrize(
    ("what", "reason", "said"),
    [
        ("raises on import", "boot", "LookupError: on purpose"),
        ("has no main", "boot", "no function 'main'.* it has other"),
        ("crashes on import", "signal", "signal 11 ended it.*Segmentation fault"),
    ],
)
def test_boot_that_fails_raises_with_state_console_and_traceback(web, image, what, reason, said):
    web.load(image(what))
    with pytest.raises(mk.BootError, match=f"(?s){said}") as caught:
        web.boot()
    error = caught.value
    assert (error.name, error.state, error.reason) == ("web", "failed", reason)
    assert web.state == "failed"
    assert web.last_end.reason == reason
    if reason == "boot":
        assert error.traceback
        assert error.traceback in error.console
    web.load(image("serves"))
    web.boot()


def test_boot_that_hangs_is_killed_at_its_time_out(web, image):
    web.load(image("hangs on import"))
    for timeout in (0.3, 3, 30):  # it has not come to its image in the first where others want the cpus, too
        with pytest.raises(mk.BootError, match=f"not active within {timeout} s: it was killed") as caught:
            web.boot(timeout=timeout)
        if caught.value.console:
            break
    assert caught.value.console == "importing\n"
    assert (web.state, web.pid) == ("failed", 0)


def test_boot_until_ready_fails_if_main_returns_before(web, image):
    web.load(image("returns before it is ready"))
    with pytest.raises(mk.BootError, match=r"not ready: main returned 0. It is failed now"):
        web.boot(until="ready")
    assert web.state == "failed"


def test_boot_until_ready_returns_when_it_waits_for_messages(machine, web, image):
    web.load(image("serves"))
    web.boot(until="ready")
    with machine.connect("web", timeout=PATIENCE) as link:
        assert link.request(b"hello", timeout=PATIENCE).payload == b"hello"


def test_kill_ends_a_boot_that_hangs(web, image, asker):
    web.load(image("hangs on import"))
    asker.begin("boot", name="web", instance=web.id, until="active", timeout=600, cold=False)
    assert web.kill().reason == "killed"
    failed = mk.errors.from_wire(asker.answer()["failed"])
    assert isinstance(failed, mk.BootError)
    assert (failed.reason, failed.state, web.state) == ("killed", "loaded", "loaded")


def test_boot_where_the_directory_is_gone_says_so(web, image, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    spec = image("serves")
    monkeypatch.chdir(gone)
    web.load(spec)
    monkeypatch.chdir(tmp_path)
    gone.rmdir()
    with pytest.raises(mk.BootError, match=f"cannot enter '{gone}'"):
        web.boot()


@pytest.mark.parametrize("spec", ["nothing.py:main", "no.such.module:main", "/:main", "broken.py", "empty.pyz"])
def test_image_that_cannot_be_one_is_refused_by_load_and_changes_nothing(web, tmp_path, monkeypatch, spec):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("def main(kernel:")
    (tmp_path / "empty.pyz").touch()
    with pytest.raises(mk.ImageError):
        web.load(spec)
    assert web.state == "ready"


def test_image_larger_than_the_memory_is_refused_and_what_was_loaded_stays(machine, image, tmp_path):
    small = machine.create("small", memory="256K")
    small.load(image("serves"))
    large = tmp_path / "large.py"
    large.write_text("#" * 300_000 + "\ndef main(kernel): pass\n")
    with pytest.raises(mk.ImageError, match=r"'small' has 256K, of which .*Create it with more memory\."):
        small.load(str(large))
    small.boot()
    small.kill()
    small.delete()


# --- what it is given


def test_instance_has_what_it_was_given_and_nothing_else(machine, image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cpu = max(os.sched_getaffinity(0))
    web = machine.create("web", cpus=[cpu], memory="32M", id=77)
    web.load(image("says what it is"), cmdline='a=1 b="c d"')
    web.boot()
    web.wait(timeout=PATIENCE)
    said = machine.proc["instances/web/console"].splitlines()
    web.delete()
    assert said.pop(0) == f'web 77 1 {machine.name} ({cpu},) {32 << 20} a=1 b="c d"'
    assert said[0] == "{'a': '1', 'b': 'c d'}"
    assert said[1] == f"[{cpu}] {tmp_path} 1"
    assert said[3] == f"[{int(signal.SIG_DFL)}, {int(signal.SIG_DFL)}] set()"
    assert said[4] == "['Name:\\tmk:web', 'NoNewPrivs:\\t1']"
    descriptors = [int(each) for each in said[2].strip("[]").replace("'", "").split(",")]
    assert len(descriptors) <= 16


def test_status_page_shows_the_cpu_that_it_runs_on(machine, image):
    cpu = max(os.sched_getaffinity(0))
    web = machine.create("web", cpus=[cpu])
    web.load(image("serves"))
    web.boot(until="ready")
    epoch, status, _ = machine.watched(web.id)
    assert (epoch, status.read().cpu, status.read().pid) == (1, cpu, web.pid)
    web.kill()
    web.delete()


# --- nothing is left


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_hundred_lives_leave_nothing(machine, image):
    """No descriptor, process, mapping or file more than before: here, in the host, and in the zygote if we may look."""

    def life() -> None:
        web = machine.create("web")
        web.load(image("serves"))
        web.boot(until="ready")
        with machine.connect("web", capacity="64K", timeout=PATIENCE) as link:
            link.request(b"hello", timeout=PATIENCE)
        web.halt()
        web.delete()

    def held() -> tuple[object, ...]:
        return (
            machine._membership.request("census", {}),
            held_by("self"),
            held_by(str(machine.pid)),
            held_by(zygote_with_its_spare(machine)),
        )

    life()
    life()
    before = held()
    for _ in range(100):
        life()
    assert held() == before


def held_by(pid: str) -> tuple[int, int] | None:
    """How many descriptors and memory objects a process has; None if this user may not look."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
        return len(os.listdir(f"/proc/{pid}/fd")), maps.count("/memfd:")
    except PermissionError:
        return None


def zygote_with_its_spare(machine: mk.Machine) -> str:
    """The parent of instances, the host's only child, once it has done all that it has to do.

    Then its one child is the one that it keeps in reserve, and it sleeps: right after a fork it holds an end of a pipe
    more, and until it has looked, the descriptor of an instance that has ended.
    """
    zygote = Path(f"/proc/{machine.pid}/task/{machine.pid}/children").read_text().split()[0]
    deadline = time.monotonic() + PATIENCE
    while not (names_of_children(zygote) == ["mk-spare"] and state_of(zygote) == "S"):
        assert time.monotonic() < deadline, (names_of_children(zygote), state_of(zygote))
        select.select([], [], [], 0.001)
    return zygote


def names_of_children(pid: str) -> list[str]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    try:
        return [Path(f"/proc/{child}/comm").read_text().strip() for child in children]
    except (FileNotFoundError, ProcessLookupError):  # one was reaped meanwhile
        return names_of_children(pid)


def state_of(pid: str) -> str:
    """A letter, as `ps` has it: S is asleep, R runs or would."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
