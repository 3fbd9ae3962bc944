"""The demo: right totals, whatever is among the files, and a clean end, whatever happens to it."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import multikernel as mk
from multikernel.host import rundir
from multikernel.tools.demo import sources

DEADLINE = 60.0

pytestmark = pytest.mark.timeout(180)

COMMAND = [sys.executable, "-m", "multikernel", "demo"]


def run_demo(
    *arguments: str, cpus: set[int] | None = None, patience: float = 2 * DEADLINE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*pinned(cpus), *COMMAND, *arguments], capture_output=True, text=True, timeout=patience, check=False
    )


def pinned(cpus: set[int] | None) -> list[str]:
    """What goes before a command so that it may use these cpus only."""
    if cpus is None:
        return []
    code = f"import os, sys; os.sched_setaffinity(0, {cpus}); os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", code]


def document_of(ran: subprocess.CompletedProcess[str]) -> dict:
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)  # fails if there is anything else on stdout


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A demo at work: killed at the end of the block if it goes on then."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as demo:
        try:
            yield demo
        finally:
            demo.kill()


def machine_of(demo: subprocess.Popen[str]) -> mk.Machine:
    """Its machine, joined as a second shell would, when it is there and parser has replied to some files."""
    name = f"demo-{demo.pid}"
    until(lambda: rundir.is_running(name), demo)
    machine = mk.Machine.attach(name)
    until(lambda: "parser" in machine and replies(machine) > 10, demo)
    return machine


def replies(machine: mk.Machine) -> int:
    status = machine.proc.snapshot("instances/parser/status")
    return (status["counters"] or {}).get("sent", 0)


def until(condition, demo: subprocess.Popen[str]) -> None:
    """Look again and again until it is so; the demo must go on meanwhile."""
    pidfd = os.pidfd_open(demo.pid)
    try:
        for _ in range(round(DEADLINE / 0.01)):
            if condition():
                return
            ended, _, _ = select.select([pidfd], [], [], 0.01)
            assert not ended, f"the demo has ended: {demo.communicate()}"
    finally:
        os.close(pidfd)
    pytest.fail("it did not come to that")


def ends(demo: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = demo.communicate(timeout=DEADLINE)
    return demo.returncode, out, err


def wait_for_end(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], DEADLINE)[0], f"process {pid} goes on"
    finally:
        os.close(pidfd)


def counted_independently(directory: Path) -> dict[str, int]:
    """The totals, by the plainest way there is."""
    totals = dict.fromkeys(("files", "unparsed", "lines", "functions", "classes", "imports"), 0)
    for path in directory.rglob("*.py"):
        if {"site-packages", "dist-packages"}.intersection(path.relative_to(directory).parts):
            continue  # installed beside the standard library, and no part of it
        totals["files"] += 1
        content = path.read_bytes()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(content)
        except (SyntaxError, ValueError):
            totals["unparsed"] += 1
            continue
        totals["lines"] += len(content.splitlines())
        for node in ast.walk(tree):
            totals["functions"] += isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            totals["classes"] += isinstance(node, ast.ClassDef)
            totals["imports"] += isinstance(node, ast.Import | ast.ImportFrom)
    return totals


EVERYWHERE = b"""\
import os, sys
from a import (b,
               c)

def outer():
    class Inner:
        async def method(self): import json
    try:
        def in_try(): pass
    except* ValueError:
        def in_handler(): pass
    else:
        def in_else(): pass
    finally:
        def in_finally(): pass
    match outer:
        case 1:
            class InCase: pass
    with outer() as o:
        for i in o:
            while i:
                if i: pass
                elif o:
                    def deep(): pass
    return lambda: (yield)
"""


@pytest.fixture
def awkward(tmp_path: Path) -> Path:
    """A directory with one of everything."""
    (tmp_path / "package" / "below").mkdir(parents=True)
    (tmp_path / "everywhere.py").write_bytes(EVERYWHERE)
    (tmp_path / "package" / "crlf.py").write_bytes(EVERYWHERE.replace(b"\n", b"\r\n"))
    (tmp_path / "package" / "no_last_newline.py").write_bytes(b"x = 1\ny = 2")
    (tmp_path / "package" / "form_feed.py").write_bytes(b"x = 1\n\x0c\ny = '\x1c'\n")
    (tmp_path / "package" / "below" / "empty.py").write_bytes(b"")
    (tmp_path / "does_not_parse.py").write_bytes(b"def f(:\n    pass\n")
    (tmp_path / "not_utf8.py").write_bytes(b"x = '\xe9'\n")
    (tmp_path / "latin1.py").write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n")
    (tmp_path / "nul.py").write_bytes(b"x = 1\0\n")
    (tmp_path / "escape.py").write_bytes(b"x = '\\d'\n")  # a SyntaxWarning in later Pythons
    (tmp_path / "large.py").write_bytes((b"def f():\n    return 1\n" + b"# and so on, and so on" * 220 + b"\n") * 1100)
    (tmp_path / "notes.txt").write_bytes(b"def no_source(): pass\n")
    os.mkdir(tmp_path / "directory.py.d")
    os.symlink("nowhere", tmp_path / "dangling.py.bak")
    (tmp_path / os.fsdecode(b"name \xff\n.py")).write_bytes(b"import a\n")
    return tmp_path


def test_totals_are_those_of_an_independent_count(awkward):
    """The one thing that the demo claims. A file of 5 MB, an empty one and one in no encoding are among them."""
    found = document_of(run_demo("--input", str(awkward), "--json"))
    expected = counted_independently(awkward)
    assert expected["functions"] > 1100
    assert found["totals"] == expected
    assert found["compared"] == {"plain": expected, "pool": expected}
    assert found["equal"] is True
    assert {each["name"] for each in found["unparsed"]} == {"does_not_parse.py", "not_utf8.py", "nul.py"}
    assert all(each["reason"] for each in found["unparsed"])
    assert found["largest"][0]["name"] == "large.py"
    assert found["largest"][0]["bytes"] == os.path.getsize(awkward / "large.py") > 5_000_000


def test_json_is_one_document_with_all_of_it(awkward):
    os.unlink(awkward / "large.py")
    ran = run_demo("--input", str(awkward), "--json")
    found = document_of(ran)
    assert list(found["totals"]) == ["files", "unparsed", "lines", "functions", "classes", "imports"]
    assert set(found["speed"]) == {"instances", "pool", "plain"}
    assert all(speed["files_per_s"] > 0 and speed["mb_per_s"] > 0 for speed in found["speed"].values())
    assert 0 < found["request_reply"]["median_s"] <= found["request_reply"]["p99_s"]
    reader, parser = found["instances"]["reader"], found["instances"]["parser"]
    assert reader["state"] == parser["state"] == "active"
    assert parser["counters"]["received"] == parser["counters"]["sent"] == found["totals"]["files"]
    assert reader["cpu"] == found["cpus"]["reader"]
    assert parser["cpu"] == found["cpus"]["parser"]
    assert parser["counters"]["received_bytes"] > found["bytes"]
    assert reader["counters"]["ipis_received"] >= 1


def test_people_get_tables(awkward):
    os.unlink(awkward / "large.py")
    ran = run_demo("--input", str(awkward))
    assert ran.returncode == 0, ran.stderr
    for text in ("The totals are equal.", "largest modules", "files/s", "multiprocessing.Pool(1)", "does_not_parse.py"):
        assert text in ran.stdout
    assert "name \\udcff\\n.py" in ran.stdout, "a file's name must not be able to write lines of its own"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_was_closed_before_is_no_error(tmp_path, closed):
    (tmp_path / "a.py").write_bytes(EVERYWHERE)
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, "--input", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ("The totals are equal." in ran.stdout) is (closed == "2>&-")


def test_a_directory_without_files_is_no_error(tmp_path):
    found = document_of(run_demo("--input", str(tmp_path), "--json"))
    assert set(found["totals"].values()) == {0}
    assert found["speed"]["instances"]["files_per_s"] is None or found["speed"]["instances"]["files_per_s"] == 0
    assert run_demo("--input", str(tmp_path)).returncode == 0


def test_a_result_longer_than_a_message_comes_whole(tmp_path):
    """Thousands of files that do not parse, each named."""
    for number in range(3000):
        (tmp_path / f"{number:04}_{'x' * 200}.py").write_bytes(b"(\n")
    found = document_of(run_demo("--input", str(tmp_path), "--json"))
    assert found["totals"]["unparsed"] == len(found["unparsed"]) == 3000
    assert found["totals"]["files"] == 3000


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.py").write_bytes(b"import a\n")
    (tmp_path / "huge.py").touch()
    os.truncate(tmp_path / "huge.py", sources.LARGEST + 1)  # sparse
    found = document_of(run_demo("--input", str(tmp_path), "--json"))
    assert found["totals"] == {"files": 2, "unparsed": 1, "lines": 1, "functions": 0, "classes": 0, "imports": 1}
    assert found["unparsed"] == [{"name": "huge.py", "reason": "larger than 64M"}]


def test_one_cpu_is_shared_and_said(tmp_path):
    (tmp_path / "a.py").write_bytes(EVERYWHERE)
    cpu = min(os.sched_getaffinity(0))
    ran = run_demo("--input", str(tmp_path), "--json", cpus={cpu})
    found = document_of(ran)
    assert found["cpus"] == {"reader": cpu, "parser": cpu, "shared": True}
    assert "share" in ran.stderr
    assert found["totals"] == counted_independently(tmp_path)


def test_cpus_that_cannot_be_are_refused(tmp_path):
    absent = max(os.sched_getaffinity(0)) + 1000
    ran = run_demo("--input", str(tmp_path), "--cpus", str(absent))
    assert ran.returncode == 5
    assert str(absent) in ran.stderr
    assert "Traceback" not in ran.stderr
    ran = run_demo("--input", str(tmp_path), "--cpus", "0-2")
    assert ran.returncode != 0
    assert "one or two cpus" in ran.stderr


@pytest.mark.parametrize("rich", [True, False])
def test_progress_goes_to_a_terminal_and_the_document_to_stdout(tmp_path, rich):
    (tmp_path / "a.py").write_bytes(EVERYWHERE)
    environment = dict(os.environ, TERM="xterm")
    if not rich:
        without = tmp_path / "without"
        without.mkdir()
        (without / "rich.py").write_text("raise ImportError")
        environment["PYTHONPATH"] = f"{without}:{environment.get('PYTHONPATH', '')}"
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [*COMMAND, "--input", str(tmp_path), "--json"],
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            env=environment,
        ) as demo:
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
                while piece := os.read(ours, 65536):
                    shown += piece
            assert demo.stdout is not None
            found = json.loads(demo.stdout.read())
    finally:
        os.close(ours)
    assert demo.returncode == 0
    assert found["totals"]["files"] == (1 if rich else 2)
    assert b"two instances" in shown


@pytest.fixture
def long_work(tmp_path: Path) -> Path:
    """A directory that takes the demo half a minute: what is done in the middle of it is not too late."""
    (tmp_path / "a.py").write_bytes(b"def f():\n    return 'x' * 3\n" * 3000)
    for number in range(500):
        os.link(tmp_path / "a.py", tmp_path / f"a{number}.py")
    return tmp_path


def test_parser_killed_in_the_middle_ends_the_demo_with_status_1(long_work):
    with running("--input", str(long_work)) as demo:
        with machine_of(demo) as machine:
            os.kill(machine["parser"].pid, signal.SIGKILL)
        status, out, err = ends(demo)
    assert status == 1
    assert out == ""
    assert "parser ended in the middle of the work" in err
    assert "SIGKILL" in err
    assert "Traceback" not in err
    assert not rundir.is_running(f"demo-{demo.pid}")


def test_a_second_shell_sees_the_demo_while_it_runs(long_work):
    """Figures of the running work, from pages alone."""
    with running("--input", str(long_work), "--json") as demo:
        machine_of(demo).close()
        for command, expected in (
            (["show"], "parser"),
            (["ls", "instances"], "reader/"),
            (["cat", "instances/parser/status"], "State:"),
        ):
            ran = subprocess.run(
                [sys.executable, "-m", "multikernel", command[0], "-M", f"demo-{demo.pid}", *command[1:]],
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                check=False,
            )
            assert ran.returncode == 0, ran.stderr
            assert expected in ran.stdout
        os.killpg(demo.pid, signal.SIGINT)
        assert ends(demo)[0] == 130


def test_reader_killed_in_the_middle_is_told_as_a_document(long_work):
    with running("--input", str(long_work), "--json") as demo:
        with machine_of(demo) as machine:
            os.kill(machine["reader"].pid, signal.SIGKILL)
        status, out, _ = ends(demo)
    assert status == 1
    assert "reader ended in the middle" in json.loads(out)["error"]["message"]


def test_an_instance_halted_from_another_shell_ends_the_demo(long_work):
    with running("--input", str(long_work)) as demo:
        with machine_of(demo) as machine:
            machine["parser"].halt()
        status, _, err = ends(demo)
    assert status == 1
    assert "parser ended in the middle of the work (halted" in err


def test_ctrl_c_while_the_instances_work_leaves_nothing(long_work):
    with running("--input", str(long_work)) as demo:
        with machine_of(demo):
            os.killpg(demo.pid, signal.SIGINT)
        status, out, err = ends(demo)
    assert (status, out) == (130, "")
    assert "Traceback" not in err


@pytest.fixture
def slow_to_compare(tmp_path: Path) -> Path:
    """A directory that takes a second or more, its first file all of that."""
    (tmp_path / "a.py").write_bytes(b"def f():\n    return 'x' * 3\n" * 50_000)
    for number in range(30):
        (tmp_path / f"b{number}.py").write_bytes(b"x = 1\n")
    (tmp_path / "z.py").write_bytes(b"import a\n")
    return tmp_path


def at_the_comparison(demo: subprocess.Popen[str]) -> None:
    """Wait until the instances are done and their machine is gone: plain processes work now."""
    name = f"demo-{demo.pid}"
    until(lambda: rundir.is_running(name), demo)
    with mk.Machine.attach(name) as machine:
        host = machine.pid
    wait_for_end(host)


def test_ctrl_c_during_the_comparison_leaves_nothing(slow_to_compare):
    with running("--input", str(slow_to_compare)) as demo:
        at_the_comparison(demo)
        os.killpg(demo.pid, signal.SIGINT)
        status, out, err = ends(demo)
    assert (status, out) == (130, "")
    assert "Traceback" not in err


def test_a_demo_killed_during_the_comparison_leaves_nothing(slow_to_compare):
    """What it is compared to runs in processes of their own: they must not outlive it."""
    with running("--input", str(slow_to_compare)) as demo:
        at_the_comparison(demo)
        demo.kill()
        assert ends(demo)[0] == -signal.SIGKILL


def test_totals_that_differ_are_a_failure(slow_to_compare):
    """A file changes behind the demo's back, after the instances and before the others have read it."""
    with running("--input", str(slow_to_compare), "--json") as demo:
        at_the_comparison(demo)
        (slow_to_compare / "z.py").write_bytes(b"import a\nimport b\n")
        status, out, err = ends(demo)
    assert status == 1
    found = json.loads(out)
    assert found["equal"] is False
    assert found["totals"]["imports"] == 1
    assert found["compared"]["plain"]["imports"] == 2
    assert "differ" in err


@pytest.mark.slow
@pytest.mark.timeout(350)
def test_what_it_counts_without_being_told_is_the_standard_library():
    """Half a minute of work: that the counting is right is seen by less."""
    found = document_of(run_demo("--json", patience=300))
    below = Path(sources.standard_library()).rglob("*.py")
    installed = {"site-packages", "dist-packages"}
    expected = sum(not installed.intersection(path.parts) for path in below)
    assert found["totals"]["files"] == expected > 100
    assert found["compared"] == {"plain": found["totals"], "pool": found["totals"]}
    assert found["equal"] is True


def test_the_standard_library_is_without_installed_packages():
    names = [source.name for source in sources.scan(sources.standard_library())]
    assert "ast.py" in names
    assert not any("site-packages" in name or "dist-packages" in name for name in names)
