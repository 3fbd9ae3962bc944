"""Run directories: one owner a name, nothing left of the dead, nothing taken from the living."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from multikernel.errors import MultikernelError, NotFound, ResourceError
from multikernel.host.rundir import RunDir, base, has_host, is_running, lives_without_host, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(120)

ROOT = os.geteuid() == 0


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty base of the test's own."""
    path = tmp_path / "run"
    monkeypatch.setenv("MULTIKERNEL_RUN", str(path))
    return path


def fork(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Holder:
    """A process that claims a name, puts files there and lives until it is killed."""

    def __init__(self, name: str) -> None:
        reader, writer = os.pipe()

        def hold() -> NoReturn:
            rundir = RunDir(name)
            rundir.claim()
            rundir.socket_path.write_text("a socket")
            rundir.log_path.write_text("a log")
            os.write(writer, b"1")
            while True:
                signal.pause()

        self.pid = fork(hold)
        os.close(writer)
        assert os.read(reader, 1) == b"1"
        os.close(reader)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert exit_code(self.pid) == -signal.SIGKILL


# -- the base -------------------------------------------------------------------------------------------------------


def test_the_base_is_made_closed_to_others(directory: Path) -> None:
    assert base() == directory
    assert directory.stat().st_mode & 0o7777 == 0o700


def test_without_an_override_the_base_is_in_xdg_runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MULTIKERNEL_RUN")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert base() == tmp_path / "multikernel"


@pytest.mark.parametrize("runtime", [None, "/nonexistent", "not ours"])
def test_without_a_runtime_directory_of_ours_the_base_is_in_tmp(
    runtime: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MULTIKERNEL_RUN")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if runtime == "not ours":
        runtime = "/"
        if ROOT:
            runtime = str(tmp_path / "other")
            Path(runtime).mkdir()
            os.chown(runtime, 12345, 12345)
    if runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    existed = Path(f"/tmp/multikernel-{os.geteuid()}").exists()
    assert base() == Path(f"/tmp/multikernel-{os.geteuid()}")
    if not existed:
        base().rmdir()


def test_a_base_that_others_may_enter_is_refused(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o755)
    with pytest.raises(MultikernelError, match=r"mode 0755.*MULTIKERNEL_RUN"):
        base()


def test_a_symbolic_link_as_base_is_refused(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MultikernelError, match="not a directory"):
        base()


def test_a_file_as_base_is_refused(directory: Path) -> None:
    directory.touch(mode=0o700)
    with pytest.raises(MultikernelError, match="not a directory"):
        base()


@pytest.mark.skipif(not ROOT, reason="only root can give a directory away")
def test_a_base_of_another_user_is_refused(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    os.chown(directory, 12345, 12345)
    with pytest.raises(MultikernelError, match="belongs to uid 12345"):
        base()


def test_a_base_that_cannot_be_made_says_why(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIKERNEL_RUN", str(directory / "missing" / "run"))
    with pytest.raises(MultikernelError, match="No such file or directory"):
        base()


# -- claim and remove -----------------------------------------------------------------------------------------------


def test_claim_makes_the_directory_and_remove_takes_it_away(directory: Path) -> None:
    rundir = RunDir("web")
    assert not directory.joinpath("web").exists()
    rundir.claim()
    rundir.claim()
    assert rundir.path == directory / "web"
    assert rundir.path.stat().st_mode & 0o777 == 0o700
    assert (rundir.socket_path.name, rundir.log_path.name) == ("control", "host.log")
    rundir.log_path.write_text("hello")
    assert is_running("web")
    rundir.remove()
    rundir.remove()
    assert os.listdir(directory) == []
    assert not is_running("web")


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_the_mode_does_not_depend_on_the_umask(directory: Path, umask: int) -> None:
    base()
    rundir = RunDir("web")
    before = os.umask(umask)
    try:
        rundir.claim()
    except PermissionError:  # a umask that takes our own rights away: only root gets by
        assert umask == 0o777
        rundir.path.rmdir()
    else:
        assert rundir.path.stat().st_mode & 0o777 == 0o700
        rundir.remove()
    finally:
        os.umask(before)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "x" * 65])
def test_a_name_that_breaks_the_rule_is_refused_before_anything_is_made(directory: Path, name: str) -> None:
    with pytest.raises(ResourceError):
        RunDir(name)
    with pytest.raises(ResourceError):
        is_running(name)
    assert not directory.exists()


def test_a_name_held_by_a_living_process_is_refused_and_its_files_stay() -> None:
    holder = Holder("web")
    try:
        rundir = RunDir("web")
        with pytest.raises(ResourceError, match="'web' is running already"):
            rundir.claim()
        rundir.remove()
        assert rundir.socket_path.read_text() == "a socket"
        assert is_running("web")
        assert running() == ["web"]
    finally:
        holder.kill()


def test_what_a_killed_process_left_behind_is_gone_after_the_next_claim() -> None:
    Holder("web").kill()
    rundir = RunDir("web")
    assert rundir.socket_path.exists()
    assert not is_running("web")
    rundir.claim()
    assert os.listdir(rundir.path) == []
    assert is_running("web")
    rundir.remove()


def test_anybody_may_remove_what_a_killed_process_left_behind(directory: Path) -> None:
    Holder("web").kill()
    RunDir("web").remove()
    assert os.listdir(directory) == []


def test_running_lists_the_living_and_removes_the_dead(directory: Path) -> None:
    holders = [Holder(name) for name in ("b", "a", "dead")]
    holders.pop().kill()
    (directory / "a file").touch()
    assert running() == ["a", "b"]
    assert sorted(os.listdir(directory)) == ["a", "a file", "b"]
    for holder in holders:
        holder.kill()
    assert running() == []


def test_a_file_in_the_way_is_named(directory: Path) -> None:
    base()
    (directory / "web").touch()
    with pytest.raises(MultikernelError, match="in the way"):
        RunDir("web").claim()
    assert not is_running("web")


def test_a_symbolic_link_in_the_way_is_not_followed(directory: Path, tmp_path: Path) -> None:
    base()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    (directory / "web").symlink_to(precious)
    with pytest.raises(MultikernelError, match="in the way"):
        RunDir("web").claim()
    RunDir("web").remove()
    assert running() == []
    assert (precious / "file").exists()


def test_files_that_are_not_ours_are_never_removed(directory: Path) -> None:
    """Somebody sets MULTIKERNEL_RUN to his home directory."""
    thesis = directory / "documents" / "thesis"
    base()
    thesis.parent.mkdir()
    thesis.touch()
    thesis.with_name("host.log").touch()
    assert running() == []
    assert not is_running("documents")
    for step in (RunDir("documents").claim, RunDir("documents").remove):
        with pytest.raises(MultikernelError, match=r"not multikernel's: thesis\."):
            step()
    assert sorted(os.listdir(thesis.parent)) == ["host.log", "thesis"]


def test_a_log_that_is_a_symbolic_link_goes_and_what_it_leads_to_stays(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    rundir = RunDir("web")
    rundir.claim()
    rundir.log_path.symlink_to(tmp_path / "log")
    rundir.remove()
    assert (tmp_path / "log").exists()
    assert os.listdir(directory) == []


# -- forked copies of the lock --------------------------------------------------------------------------------------


def test_a_forked_copy_keeps_the_name_until_it_closes_it() -> None:
    reader, writer = os.pipe()
    rundir = RunDir("web")
    rundir.claim()

    def keep() -> None:
        os.close(writer)
        os.read(reader, 1)

    pid = fork(keep)
    rundir.close()
    assert is_running("web")
    os.close(writer)
    assert exit_code(pid) == 0
    assert not is_running("web")
    os.close(reader)
    rundir.remove()


def test_close_in_a_child_leaves_the_name_to_its_parent() -> None:
    rundir = RunDir("web")
    rundir.claim()
    assert exit_code(fork(rundir.close)) == 0
    assert is_running("web")
    rundir.remove()


def test_the_lock_does_not_reach_a_program_started_with_close_fds_false() -> None:
    rundir = RunDir("web")
    rundir.claim()
    program = [sys.executable, "-c", "print('up', flush=True); input()"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"  # the kernel may close the lock's copy some time after Popen returns
        rundir.close()
        assert not is_running("web")
        child.communicate(b"\n")
    assert child.returncode == 0
    rundir.remove()


def test_a_copy_left_over_removes_nothing_of_the_next_owner_of_the_name() -> None:
    """A zygote that is late: its host has removed the directory, and another machine has the name."""
    rundir = RunDir("web")
    rundir.claim()
    reader, writer = os.pipe()

    def late() -> None:
        os.close(writer)
        os.read(reader, 1)
        rundir.remove()

    pid = fork(late)
    os.close(reader)
    rundir.remove()
    successor = RunDir("web")
    successor.claim()
    successor.socket_path.write_text("a socket")
    os.close(writer)
    assert exit_code(pid) == 0
    assert successor.socket_path.read_text() == "a socket"
    assert is_running("web")
    successor.remove()


# -- races ----------------------------------------------------------------------------------------------------------


def test_of_many_who_claim_at_once_one_gets_the_name() -> None:
    Holder("web").kill()  # so that there is something to clear away, too
    reader, writer = os.pipe()
    held, holding = os.pipe()

    def claim() -> None:
        os.close(writer)
        os.close(held)
        os.read(reader, 1)  # end of file: go
        rundir = RunDir("web")
        try:
            rundir.claim()
        except ResourceError:
            os.write(holding, b"-")
            return
        rundir.socket_path.write_text(str(os.getpid()))
        os.write(holding, b"+")
        signal.pause()

    pids = [fork(claim) for _ in range(8)]
    os.close(reader)
    os.close(holding)
    os.close(writer)
    verdicts = b""
    while len(verdicts) < len(pids):
        verdicts += os.read(held, 8)
    assert sorted(verdicts) == sorted(b"-" * 7 + b"+")
    winner = int(RunDir("web").socket_path.read_text())
    assert winner in pids
    os.kill(winner, signal.SIGKILL)
    assert sorted(map(exit_code, pids)) == [-signal.SIGKILL] + [0] * 7
    os.close(held)
    RunDir("web").remove()


def test_who_only_looks_never_makes_a_claim_fail_and_never_removes_a_living_machine() -> None:
    """Lookers lock stale and half-made directories for a moment; claims and removals go on at full speed beside."""
    reader, writer = os.pipe()
    base()

    def look() -> None:
        os.close(writer)
        os.set_blocking(reader, False)
        while True:
            running()
            is_running("web")
            try:
                if os.read(reader, 1) == b"":
                    return
            except BlockingIOError:
                continue

    pids = [fork(look) for _ in range(3)]
    os.close(reader)
    for number in range(300):
        rundir = RunDir("web")
        rundir.claim()
        rundir.socket_path.write_text(str(number))
        assert rundir.socket_path.read_text() == str(number)
        assert is_running("web")
        if number % 2:
            rundir.close()  # as if killed: what is there is stale now
        else:
            rundir.remove()
    os.close(writer)
    assert [exit_code(pid) for pid in pids] == [0, 0, 0]
    assert running() == []


def test_no_two_ever_hold_one_name_while_it_is_claimed_and_removed_all_the_time(tmp_path: Path) -> None:
    """A lock on a directory that its last owner has just removed is worth nothing."""
    witness = tmp_path / "held"
    base()

    def work() -> None:
        claimed = 0
        while claimed < 300:
            rundir = RunDir("web")
            try:
                rundir.claim()
            except ResourceError:
                continue
            witness.touch(exist_ok=False)
            assert rundir.path.is_dir()
            witness.unlink()
            rundir.remove()
            claimed += 1

    assert [exit_code(pid) for pid in [fork(work) for _ in range(4)]] == [0] * 4


def test_any_number_may_look_at_once_and_none_takes_another_for_a_machine() -> None:
    Holder("web").kill()

    def look() -> None:
        assert not any(is_running("web") for _ in range(1000))

    assert [exit_code(pid) for pid in [fork(look) for _ in range(4)]] == [0] * 4


def test_threads_of_one_process_exclude_each_other_too() -> None:
    rundirs = [RunDir("web") for _ in range(4)]
    outcomes: list[bool] = []

    def claim(rundir: RunDir) -> None:
        try:
            rundir.claim()
        except ResourceError:
            outcomes.append(False)
        else:
            outcomes.append(True)

    threads = [threading.Thread(target=claim, args=(rundir,)) for rundir in rundirs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False, False, False, True]
    for rundir in rundirs:
        rundir.remove()
    assert not is_running("web")


# -- instances that outlive their host ---------------------------------------------------------------------------------


class Orphan:
    """A process that holds what an instance of a persistent machine holds, after its host has ended."""

    def __init__(self, name: str) -> None:
        reader, writer = os.pipe()
        rundir = RunDir(name)
        rundir.claim()
        held = rundir.hold_for_instances()

        def live() -> NoReturn:
            rundir.close()
            os.write(writer, b"1")
            while True:
                signal.pause()

        self.pid = fork(live)
        os.close(writer)
        assert os.read(reader, 1) == b"1"
        os.close(reader)
        (rundir.path / "machine").write_text("{}")
        (rundir.path / "instances/1").write_text("{}")
        os.close(held)
        rundir.close()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert exit_code(self.pid) == -signal.SIGKILL


def test_name_stays_taken_and_files_stay_while_an_instance_lives(directory: Path) -> None:
    orphan = Orphan("web")
    try:
        assert is_running("web")
        assert lives_without_host("web")
        assert not has_host("web")
        assert running() == ["web"]
        RunDir("web").remove()  # as a clumsy client would
        assert (directory / "web/instances/1").exists()
        with pytest.raises(ResourceError, match="running already"):
            RunDir("web").claim()
    finally:
        orphan.kill()
    assert running() == []
    assert not (directory / "web").exists()


def test_next_host_takes_over_what_lives_and_removes_nothing(directory: Path) -> None:
    orphan = Orphan("web")
    rundir = RunDir("web")
    try:
        rundir.take_over()
        assert has_host("web")
        assert not lives_without_host("web")
        assert (directory / "web/instances/1").read_text() == "{}"
        with pytest.raises(ResourceError, match="running already"):
            RunDir("web").take_over()
    finally:
        orphan.kill()
    rundir.remove()
    assert not (directory / "web").exists()


def test_what_is_dead_or_was_never_there_is_not_taken_over(directory: Path) -> None:
    Orphan("web").kill()
    for name in ("web", "never"):
        with pytest.raises(NotFound):
            RunDir(name).take_over()
    assert running() == []


def test_strange_files_among_the_instances_are_named_and_stay(directory: Path) -> None:
    Orphan("web").kill()
    strange = directory / "web/instances/diary.txt"
    strange.write_text("dear")
    with pytest.raises(MultikernelError, match=r"instances/diary\.txt"):
        RunDir("web").claim()
    assert strange.read_text() == "dear"
    assert (directory / "web/machine").exists()
