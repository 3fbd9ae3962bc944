"""A machine as a program holds it: made, found by others, shared, and gone without a trace however it ends."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

import multikernel as mk
from multikernel.client import launch
from multikernel.client.connection import ask_first
from multikernel.host.rundir import RunDir, base
from multikernel.shm.channel import close_all
from tests.eventually import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="256M") as machine:
        log = RunDir(machine.name).log_path
        yield machine
        if log.exists():
            assert log.read_text() == ""  # the host had nothing to complain of


@pytest.fixture
def serving(tmp_path: Path) -> str:
    """An image that replies to every message with the same."""
    path = tmp_path / "serving.py"
    path.write_text(
        "def main(kernel):\n    for message in kernel.messages():\n        message.reply(message.payload)\n"
    )
    return f"{path}:main"


class Program:
    """A program of its own that makes a machine "other" with an active instance, says who they are, and goes on."""

    def __init__(self, image: str, then: str, **options: object) -> None:
        code = f"""
            import json, os, signal, sys
            import multikernel as mk
            with mk.Machine(name="other", memory="64M", **{options!r}) as machine:
                web = machine.create("web")
                web.load({image!r})
                web.boot(until="ready")
                zygote = int(open(f"/proc/{{web.pid}}/stat").read().rpartition(")")[2].split()[1])
                print(json.dumps({{"host": machine.pid, "zygote": zygote, "web": web.pid}}), flush=True)
                {then}
        """
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self.pids = json.loads(line)
        self.ends = {name: os.pidfd_open(pid) for name, pid in self.pids.items()}

    def assert_gone(self) -> None:
        """Host, zygote and instance have ended, and nothing is in the run directory."""
        for name, pidfd in self.ends.items():
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            assert poll.poll(PATIENCE * 1000), f"the {name} goes on"
        assert mk.machines() == []
        assert list(base().iterdir()) == []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        for pidfd in self.ends.values():
            os.close(pidfd)


# --- one program


def test_machine_has_what_it_was_made_with():
    cpus = sorted(os.sched_getaffinity(0))[:1]
    with mk.Machine(cpus=cpus, memory="64M", name="named") as machine:
        assert mk.machines() == ["named"]
        assert machine.name == "named"
        record = machine.view.machine()
        assert (record.cpus, record.memory, record.host_pid) == (tuple(cpus), 64 << 20, machine.pid)
        assert os.getsid(machine.pid) == machine.pid != os.getsid(0)
    assert mk.machines() == []


def test_machine_without_a_name_gets_one_of_its_own():
    with mk.Machine(memory="1M") as one, mk.Machine(memory="1M") as other:
        assert one.name != other.name
        assert mk.machines() == sorted([one.name, other.name])


def test_machine_may_have_the_longest_name_and_an_odd_one():
    for name in ("x" * 64, "mit Leerzeichen und ü", "-M"):
        with mk.Machine(memory="1M", name=name), mk.Machine.attach(name) as joined:
            assert joined.name == name


def test_taken_name_is_refused(machine):
    with pytest.raises(mk.ResourceError, match=f"{machine.name}.* is running already"):
        mk.Machine(memory="1M", name=machine.name)
    machine.create("still served")


@pytest.mark.parametrize("name", ["", "a/b", "x" * 65, ".", "..", "a\0b", "a\nb"])
def test_name_against_the_rule_is_refused_with_the_rule(machine, name):
    for make in (lambda: mk.Machine(name=name), lambda: machine.create(name), lambda: mk.Machine.attach(name)):
        with pytest.raises(mk.ResourceError, match="1 to 64 characters"):
            make()
    assert len(machine) == 0


def test_cpus_that_this_process_may_not_use_are_refused_with_those_it_may():
    free = sorted(os.sched_getaffinity(0))
    with pytest.raises(mk.ResourceError, match="cpu 1023 is not there") as caught:
        mk.Machine(cpus=[free[0], 1023])
    assert caught.value.free == tuple(free)


def test_cpus_that_are_taken_or_not_in_the_pool_are_refused_with_those_that_are_free(machine):
    cpus = machine.view.machine().cpus
    machine.create("first", cpus=cpus[:1])
    with pytest.raises(mk.ResourceError, match=f"cpu {cpus[0]} is held by 'first'") as caught:
        machine.create("second", cpus=[cpus[0], 999])
    assert caught.value.free == cpus[1:]
    assert list(machine) == ["first"]


def test_cpu_may_be_shared_by_all_who_say_so(machine):
    cpu = machine.view.machine().cpus[0]
    machine.create("one", cpus=cpu, exclusive=False)
    machine.create("two", cpus=cpu, exclusive=False)
    with pytest.raises(mk.ResourceError, match="held by 'one', 'two'"):
        machine.create("three", cpus=cpu)


def test_more_memory_than_there_is_is_refused(machine):
    machine.create("large", memory="200M")
    with pytest.raises(mk.ResourceError, match="56M of the pool's 256M is free") as caught:
        machine.create("too large", memory="100M", exclusive=False)
    assert caught.value.memory_free == 56 << 20
    with pytest.raises(mk.ResourceError, match="console and pages alone take 128K"):
        machine.create("too small", memory="4K")


def test_taken_name_or_id_of_an_instance_is_refused(machine):
    machine.create("web", id=7, exclusive=False)
    with pytest.raises(mk.ResourceError, match="the name 'web' is taken"):
        machine.create("web", exclusive=False)
    with pytest.raises(mk.ResourceError, match="id 7 is taken by 'web'"):
        machine.create("other", id=7, exclusive=False)
    with pytest.raises(mk.ResourceError, match="1 to 511, not 0"):
        machine.create("other", id=0, exclusive=False)


def test_instances_are_found_by_name_and_listed_by_id(machine):
    machine.create("b", id=2, exclusive=False)
    machine.create("a", id=3, exclusive=False)
    machine.create("c", id=1, exclusive=False)
    assert list(machine) == ["c", "b", "a"]
    assert len(machine) == 3
    assert machine["a"].id == 3
    assert "a" in machine
    with pytest.raises(mk.NotFound, match=r"no instance 'd'.* There is 'c', 'b', 'a'"):
        machine["d"]
    with pytest.raises(KeyError):
        machine.delete("d")


def test_handle_of_a_deleted_instance_says_so(machine):
    web = machine.create("web")
    machine.delete("web")
    again = machine.create("web")
    assert again.id == web.id
    web.delete()  # the same name and id: as good as the same
    with pytest.raises(mk.NotFound, match="was deleted"):
        again.state  # noqa: B018
    assert "gone" in repr(again)


def test_representations_say_name_state_and_pid(machine, serving):
    web = machine.create("web", id=9)
    assert repr(web) == "<Instance 'web', id 9, ready>"
    web.load(serving)
    web.boot()
    assert repr(web) == f"<Instance 'web', id 9, active, pid {web.pid}>"
    assert repr(machine) == f"<Machine {machine.name!r}, host pid {machine.pid}, 1 instances>"


def test_errors_of_the_host_arrive_as_their_class_with_fields_and_pickle(machine):
    web = machine.create("web")
    with pytest.raises(mk.StateError) as caught:
        web.boot()
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: TID251 - our own
    assert (copy.state, copy.legal, str(copy)) == ("ready", ("load", "delete", "load --panic"), str(caught.value))


def test_closed_machine_says_so_and_may_be_closed_again():
    machine = mk.Machine(memory="1M")
    web = machine.create("web", memory="1M")
    machine.close()
    machine.close()
    for use in (lambda: machine.create("other"), lambda: list(machine), lambda: web.state, web.halt, machine.shutdown):
        with pytest.raises(mk.Closed, match="closed here"):
            use()
    assert "closed" in repr(machine)


def test_close_halts_what_is_active(machine, tmp_path):
    image = tmp_path / "image.py"
    image.write_text(
        f"def main(kernel):\n    for _ in kernel.messages(): pass\n    open({str(tmp_path / 'halted')!r}, 'w')\n"
    )
    with mk.Machine(memory="64M") as own:
        own.create("web").load(str(image))
        own["web"].boot(until="ready")
    assert (tmp_path / "halted").exists()


def test_machine_that_is_dropped_is_closed_with_a_warning():
    with pytest.warns(ResourceWarning, match=r"'dropped'.* was not closed"):
        mk.Machine(memory="1M", name="dropped")
    assert mk.machines() == []


def test_attached_machine_that_is_dropped_goes_on(machine):
    joined = mk.Machine.attach(machine.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del joined
        gc.collect()
    machine.create("still served")


def test_machine_of_the_parent_is_refused_in_a_forked_child_and_stays_as_it_is(machine):
    web = machine.create("web")

    def in_child() -> None:
        for use in (lambda: machine.create("other"), lambda: list(machine), lambda: web.state, machine.shutdown):
            with pytest.raises(mk.NotOwner, match="a fork of it: attach anew"):
                use()
        machine.close()
        with mk.Machine.attach(machine.name) as joined:
            joined.create("from the child", exclusive=False)

    before = len(os.listdir("/proc/self/fd"))
    pid = os.fork()
    if pid == 0:
        try:
            assert len(os.listdir("/proc/self/fd")) < before  # the parent's connection is not the child's to hold
            in_child()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001
            sys.stderr.write(f"{error!r}\n")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert list(machine) == ["web", "from the child"]


# --- several programs, and threads


def test_two_clients_see_and_change_the_same(machine, serving):
    with mk.Machine.attach(machine.name) as other:
        web = other.create("web")
        machine["web"].load(serving)
        web.boot(until="ready")
        assert machine["web"].pid == web.pid
        assert machine.watched(web.id)[1].read().pid == web.pid
        assert (
            other.proc["instances/web/status"].splitlines()[0] == machine.proc["instances/web/status"].splitlines()[0]
        )
        with machine.connect("web") as one, other.connect("web") as two:
            assert one.request(b"1", timeout=PATIENCE).payload == b"1"
            assert two.request(b"2", timeout=PATIENCE).payload == b"2"
        machine["web"].kill()
        assert web.state == "loaded"
        assert machine.view.machine().clients == 2


def test_client_that_joins_later_sees_the_pages_of_one_that_has_ended(machine, tmp_path):
    (tmp_path / "image.py").write_text("def main(kernel): print('it was here')\n")
    web = machine.create("web")
    web.load(f"{tmp_path}/image.py")
    web.boot()
    web.wait(timeout=PATIENCE)
    for _ in range(20):
        with mk.Machine.attach(machine.name) as late:
            os.kill(machine.pid, signal.SIGSTOP)  # nothing comes later
            try:
                assert late.proc["instances/web/console"] == "it was here\n"
            finally:
                os.kill(machine.pid, signal.SIGCONT)


def test_steps_that_two_clients_ask_for_at_once_are_done_one_by_one(machine, serving):
    """Of two that boot the same instance one does, and the other is told that it is active."""
    web = machine.create("web")
    web.load(serving)
    outcomes = []

    def boot() -> None:
        with mk.Machine.attach(machine.name) as own:
            try:
                own["web"].boot()
                outcomes.append("booted")
            except mk.StateError as error:
                outcomes.append(error.state)

    threads = [threading.Thread(target=boot) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["active"] * 5 + ["booted"]
    assert web.epoch == 1


def test_threads_share_a_machine_and_a_slow_answer_holds_up_none(machine, tmp_path):
    (tmp_path / "image.py").write_text("import signal\ndef main(kernel): signal.pause()\n")
    web = machine.create("web")
    web.load(f"{tmp_path}/image.py")
    web.boot()
    ends = []
    waiting = threading.Thread(target=lambda: ends.append(web.wait()))
    waiting.start()

    def work(number: int) -> None:
        for _ in range(20):
            machine.create(f"n{number}", cpus=web.cpus if number < 0 else None, memory="1M", exclusive=False)
            machine.delete(f"n{number}")

    workers = [threading.Thread(target=work, args=[number]) for number in range(4)]
    if len(machine.view.machine().cpus) > 1:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not ends
    web.kill()
    waiting.join()
    assert ends[0].reason == "killed"


def test_close_wakes_threads_that_wait(machine, tmp_path):
    (tmp_path / "image.py").write_text("import signal\ndef main(kernel): signal.pause()\n")
    web = machine.create("web")
    web.load(f"{tmp_path}/image.py")
    web.boot()
    told = []

    def wait() -> None:
        with mk.Machine.attach(machine.name) as own:
            try:
                own["web"].wait()
            except mk.Closed as error:
                told.append(error)

    with mk.Machine.attach(machine.name) as own:
        waiting = threading.Thread(target=wait)
        waiting.start()
        until(lambda: own.view.machine().clients == 3)
        machine.shutdown(timeout=0)
        waiting.join()
        with pytest.raises(mk.Closed, match="is gone"):
            own.create("other")
        assert own.view.machine().name == machine.name  # what it has seen stays


def test_attach_without_a_name_takes_the_only_one_or_the_default():
    with pytest.raises(mk.NotFound, match="no machine is running"):
        mk.Machine.attach()
    with mk.Machine(memory="1M", name="one"):
        with mk.Machine.attach() as joined:
            assert joined.name == "one"
        with mk.Machine(memory="1M", name="two"):
            with pytest.raises(mk.NotFound, match="2 machines are running: 'one', 'two'"):
                mk.Machine.attach()
            with mk.Machine(memory="1M", name="default"), mk.Machine.attach() as joined:
                assert joined.name == "default"


def test_attach_to_a_machine_that_is_not_there_lists_those_that_are(machine):
    with pytest.raises(mk.NotFound, match=f"no machine named 'other' is running; '{machine.name}' is"):
        mk.Machine.attach("other")


def test_connect_to_what_is_not_there_or_not_active_is_refused(machine, serving):
    with pytest.raises(mk.NotFound, match="no instance 'web'"):
        machine.connect("web")
    web = machine.create("web")
    web.load(serving)
    with pytest.raises(mk.StateError, match="cannot connect to 'web': it is loaded"):
        machine.connect("web")


def test_connect_to_one_that_is_busy_times_out_and_says_so(machine, tmp_path):
    (tmp_path / "image.py").write_text("import signal\ndef main(kernel): signal.pause()\n")
    web = machine.create("web")
    web.load(f"{tmp_path}/image.py")
    web.boot()
    with pytest.raises(mk.Timeout, match=r"'web' is active, but busy: it has not taken the link within 0.1 s"):
        machine.connect("web", timeout=0.1)


def test_connect_to_one_that_ends_meanwhile_is_closed(machine, tmp_path):
    (tmp_path / "image.py").write_text("import signal\ndef main(kernel): signal.pause()\n")
    web = machine.create("web")
    web.load(f"{tmp_path}/image.py")
    web.boot()
    told = []

    def connect() -> None:
        try:
            machine.connect("web")
        except mk.MultikernelError as error:
            told.append(error)

    connecting = threading.Thread(target=connect)
    connecting.start()
    web.kill()
    connecting.join()
    assert isinstance(told[0], mk.Closed | mk.StateError)


def test_link_larger_than_the_instance_has_memory_for_is_refused(machine, serving):
    web = machine.create("web", memory="1M")
    web.load(serving)
    web.boot()
    with pytest.raises(mk.ResourceError, match="does not fit into 'web'"):
        machine.connect("web", capacity="16M")


def test_offers_that_an_instance_does_not_take_are_bounded_and_do_it_no_harm(machine, tmp_path):
    """However many ask for links: it is not ended for having been busy, and takes one when it looks again."""
    (tmp_path / "image.py").write_text(
        "import signal\n"
        "def main(kernel):\n"
        "    signal.signal(signal.SIGUSR1, lambda *_: None)\n"
        "    signal.pause()\n"
        "    for message in kernel.messages(): message.reply(message.payload)\n"
    )
    web = machine.create("web")
    web.load(f"{tmp_path}/image.py")
    web.boot()
    for _ in range(400):
        with pytest.raises(mk.Timeout, match="'web' is active, but busy"):
            machine.connect("web", capacity="4K", timeout=0.0)
    os.kill(web.pid, signal.SIGUSR1)
    with machine.connect("web", timeout=PATIENCE) as link:
        assert link.request(b"hello", timeout=PATIENCE).payload == b"hello"


def test_instances_link_to_each_other_and_talk_while_the_host_is_stopped(machine, serving, tmp_path):
    if len(machine.view.machine().cpus) < 2:
        pytest.skip("needs two cpus")
    (tmp_path / "front.py").write_text(
        "def main(kernel):\n"
        "    back = kernel.connect('back')\n"
        "    for message in kernel.messages():\n"
        "        message.reply(back.request(message.payload + b'!').payload)\n"
    )
    for name, image in (("back", serving), ("front", f"{tmp_path}/front.py")):
        machine.create(name, memory="16M").load(image)
        machine[name].boot(until="ready")
    with machine.connect("front") as link:
        os.kill(machine.pid, signal.SIGSTOP)
        try:
            assert link.request(b"hello", timeout=PATIENCE).payload == b"hello!"
        finally:
            os.kill(machine.pid, signal.SIGCONT)


# --- persistent machines


def test_persistent_machine_goes_on_without_its_creator_until_shutdown(serving):
    with mk.Machine(memory="64M", name="stays", persist=True) as machine:
        machine.create("web").load(serving)
        machine["web"].boot()
        pid = machine["web"].pid
    with mk.Machine.attach("stays") as machine:
        assert machine["web"].pid == pid
        assert machine.view.machine().persistent
        machine.shutdown()
    assert mk.machines() == []


def test_persistent_machine_survives_the_kill_of_its_creator(serving):
    with Program(serving, "signal.pause()", persist=True) as program:
        program.process.kill()
        program.process.wait()
        with mk.Machine.attach("other") as machine:
            assert machine["web"].pid == program.pids["web"]
            machine.shutdown()
        program.assert_gone()


# --- ends that nobody planned


def test_killed_program_leaves_nothing(serving):
    with Program(serving, "signal.pause()") as program:
        program.process.kill()
        program.assert_gone()


def test_killed_program_leaves_nothing_though_a_child_of_it_holds_all_its_descriptors(serving):
    with Program(serving, "os.fork() or signal.pause(); signal.pause()") as program:
        program.process.kill()
        program.assert_gone()
        os.killpg(program.process.pid, signal.SIGKILL)


@pytest.mark.parametrize("which", ["host", "zygote"])
def test_killed_host_or_zygote_takes_the_machine_with_it(serving, which):
    with Program(serving, "sys.stdin.read()") as program, mk.Machine.attach("other") as machine:
        os.kill(program.pids[which], signal.SIGKILL)
        program.assert_gone()
        with pytest.raises(mk.Closed, match="is gone"):
            machine.create("other")
        assert machine.view.machine().name == "other"


def test_machine_whose_host_was_killed_closes_quietly(machine, serving):
    machine.create("web").load(serving)
    machine["web"].boot()
    os.kill(machine.pid, signal.SIGKILL)
    machine.close()
    assert mk.machines() == []


def test_machine_whose_host_is_stopped_can_be_seen_and_times_out(machine, serving):
    web = machine.create("web")
    web.load(serving)
    web.boot(until="ready")
    os.kill(machine.pid, signal.SIGSTOP)
    assert web.state == "active"
    assert "active" in machine.proc["instances/web/status"]
    with pytest.raises(mk.Timeout, match="does not answer: it is stopped"):
        machine._membership._connection.request("census", {}, timeout=0.1, grace=0.1)
    os.kill(machine.pid, signal.SIGCONT)
    assert web.halt().reason == "halted"


def test_signal_to_the_whole_group_of_the_host_takes_the_machine_with_it(serving):
    with Program(serving, "sys.stdin.read()") as program:
        os.killpg(program.pids["host"], signal.SIGKILL)
        program.assert_gone()


def test_machine_of_which_host_and_zygote_were_killed_closes_quietly(machine, serving):
    machine.create("web").load(serving)
    machine["web"].boot()
    pid = machine["web"].pid
    zygote = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(machine.pid, signal.SIGSTOP)  # so that it cannot clear up either
    os.kill(zygote, signal.SIGKILL)
    os.kill(machine.pid, signal.SIGKILL)
    machine.close()
    assert list(base().iterdir()) == []


def test_terminated_host_ends_in_good_order(serving):
    with Program(serving, "sys.stdin.read()") as program:
        os.kill(program.pids["host"], signal.SIGTERM)
        program.assert_gone()


@pytest.mark.parametrize(
    "then",
    ["signal.pause()", "web.wait()", "machine.connect('web').recv()", "web.halt(); web.wait(); signal.pause()"],
)
def test_ctrl_c_returns_at_once_and_leaves_nothing(serving, then):
    with Program(serving, then) as program:
        # To the whole group, as a terminal does it; again, should the first have come before the program waits.
        while program.process.poll() is None:
            os.killpg(program.process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.process.wait(timeout=0.5)
        assert "KeyboardInterrupt" in program.process.stderr.read()
        program.assert_gone()


def test_ctrl_c_while_the_host_starts_leaves_nothing():
    for delay in range(0, 300, 30):
        code = "import os, multikernel as mk; os.write(1, b'.'); mk.Machine(memory='1M').close(); os.write(1, b'!')"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process.stdout.read(1)
        select.select([], [], [], delay / 1000)  # a point in its start that differs from round to round
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)


def test_ctrl_c_when_a_host_that_is_to_stay_serves_already_ends_it(monkeypatch):
    """It comes between the host's answer and who waits for that; the host is not left to be killed."""
    served = []
    wait = launch.HostProcess.wait

    def interrupted(*arguments: object) -> None:
        close_all(ask_first(*arguments)[1])
        served.extend(mk.machines())
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "ask_first", interrupted)
    monkeypatch.setattr(launch.HostProcess, "wait", lambda process, _: wait(process, 1000.0))
    with pytest.raises(KeyboardInterrupt):
        mk.Machine(name="stays", memory="1M", persist=True)
    assert served == ["stays"]
    assert mk.machines() == []


def test_host_that_cannot_start_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    with pytest.raises((mk.MultikernelError, OSError), match="No such file"):
        mk.Machine(memory="1M")
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho this is no python >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(mk.MultikernelError, match=r"did not start. this is no python"):
        mk.Machine(memory="1M")
    assert mk.machines() == []


def test_what_a_killed_host_left_behind_does_not_matter_to_the_next(serving):
    rundir = RunDir("left")
    rundir.claim()
    (rundir.path / "control").touch()
    rundir.close()
    with mk.Machine(memory="1M", name="left") as machine:
        machine.create("web", memory="1M")


def test_program_s_own_modules_do_not_get_into_the_host(tmp_path, serving):
    """A file of the program's that is called as one of the standard library's is its own affair."""
    (tmp_path / "selectors.py").write_text("raise SystemExit('the wrong one')\n")
    (tmp_path / "program.py").write_text(
        "import sys; sys.path.remove(sys.path[0])\nimport multikernel as mk, multikernel.machine\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\nwith mk.Machine(memory='64M') as machine: machine.create('web')\n"
    )
    subprocess.run([sys.executable, str(tmp_path / "program.py")], cwd=tmp_path, check=True, timeout=60)
