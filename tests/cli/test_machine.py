"""The commands on machines that run: real hosts and instances, each command a process of its own, as from a shell."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import multikernel as mk
from multikernel.cli import describe
from multikernel.client import membership
from tests.eventually import PATIENCE, until

Cli = Callable[..., Any]
COMMAND = [sys.executable, "-m", "multikernel"]

ECHO = """
def main(kernel):
    print(f"{kernel.name} is up: {kernel.cmdline}")
    for message in kernel.messages():
        message.reply(bytes(message.payload).upper())
    print("asked to halt")
    return 0
"""

CHATTY = """
import time
def main(kernel):
    for number in range(100):
        print("line")
        time.sleep(0.01)
    for message in kernel.messages():
        pass
"""

DEAF = """
import time
def main(kernel):
    print("up")
    while True:
        time.sleep(0.05)
"""


@pytest.fixture
def machine(cli, cpus, directory) -> Iterator[str]:
    """A persistent machine called `default`, with an image in the directory of the commands."""
    (directory / "echo.py").write_text(ECHO)
    (directory / "deaf.py").write_text(DEAF)
    cli("init", "--cpus", ",".join(map(str, cpus)), "--memory", "256M")
    try:
        yield "default"
    finally:
        cli("shutdown")


@pytest.fixture
def web(cli, machine) -> str:
    """An active instance that answers in capitals."""
    cli("create", "web")
    cli("load", "web", "echo.py", "-c", "loud=1")
    cli("start", "web", "--until", "ready")
    return "web"


@pytest.fixture
def shell(directory) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command that stays; ended with the test, if it has not by itself."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints, within the time that anything may take."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
    assert ready, "it has printed nothing"
    return process.stdout.readline()


def state(cli: Cli, name: str) -> str:
    return cli("show", name, "--json").document["instance"]["state"]


# --- a machine's life


def test_a_machine_is_made_seen_from_another_shell_and_ended(program, cpus):
    made = program("init", "-M", "one", "--cpus", str(cpus[0]), "-m", "128M", "--json").document
    try:
        assert made["machine"] == "one"
        assert made["host"]["persistent"] is True
        assert made["pool"] == {
            "cpus": [cpus[0]], "cpus_free": [cpus[0]], "memory": 128 << 20, "memory_free": 128 << 20
        }  # fmt: skip
        seen = program("show", "--json").document
        assert seen["host"]["pid"] == made["host"]["pid"]
        assert seen["instances"] == []
    finally:
        ended = program("shutdown", "-M", "one", "--json").document
    assert ended == {"machine": "one", "instances": [], "dry_run": False}
    program("show", status=3)


def test_a_second_machine_of_the_same_name_is_refused_with_5(cli, machine):
    ran = cli("init", "--cpus", "0", status=5)
    assert "default" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(("spec", "asked"), [("8000", [8000]), ("none", [])])
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["real", "dry"])
def test_a_pool_of_cpus_that_are_not_there_is_refused_with_5(spec, asked, dry, cli):
    ran = cli("init", "--cpus", spec, "--json", *dry, status=5)
    assert ran.document["error"]["type"] == "ResourceError"
    assert ran.document["error"]["fields"]["asked"] == asked
    cli("show", status=3)


def test_a_dry_init_makes_nothing_and_answers_as_a_real_one(cli):
    dry = cli("init", "--dry-run", "--json").document
    assert dry["dry_run"] is True
    assert dry["pool"]["cpus"] == sorted(os.sched_getaffinity(0))
    assert dry["pool"]["memory"] > 0
    cli("show", status=3)
    assert set(dry) == set(cli("init", "--json").document) | {"dry_run"}
    cli("shutdown")


def test_the_report_says_how_the_cpus_lie(cli):
    topology = cli("init", "--dry-run", "--report", "--format", "json").document["topology"]
    cores = sorted(cpu for core in topology["cores"] for cpu in core)
    assert cores == sorted(cpu for package in topology["packages"].values() for cpu in package)
    assert set(os.sched_getaffinity(0)) <= set(cores)
    text = cli("init", "--dry-run", "--report").out
    assert text.startswith("machine:")
    assert "processor:" in text


def test_with_two_machines_one_has_to_be_named(program, cpus):
    for name in ("one", "two"):
        program("init", "-M", name, "--cpus", str(cpus[0]), "-m", "64M")
    try:
        ran = program("show", status=4)
        assert "'one', 'two'" in ran.err
        assert program("show", "-M", "two", "--json").document["machine"] == "two"
        assert program("show", "--json", MULTIKERNEL_MACHINE="one").document["machine"] == "one"
    finally:
        for name in ("one", "two"):
            program("shutdown", "-M", name)


# --- an instance's life


def test_an_instance_lives_through_every_step(program, machine, cpus):
    made = program("create", "web", "-c", str(cpus[-1]), "-m", "32M", "--json").document
    assert made["machine"] == machine
    assert made["instance"] | {"id": 0} == {
        "name": "web", "id": 0, "state": "ready", "pid": 0, "epoch": 0, "cpus": [cpus[-1]], "exclusive": True,
        "memory": 32 << 20, "image": None, "cmdline": "", "last_end": None, "restart": "never", "restarts": 0,
    }  # fmt: skip

    loaded = program("load", "web", "echo.py:main", "-c", "loud=1", "--json").document["instance"]
    assert (loaded["state"], loaded["image"]["name"], loaded["cmdline"]) == ("loaded", "echo.py:main", "loud=1")

    started = program("start", "web", "--until", "ready", "--json").document["instance"]
    assert (started["state"], started["epoch"]) == ("active", 1)
    assert os.sched_getaffinity(started["pid"]) == {cpus[-1]}

    assert program("send", "web", "hello", "--request").out == "HELLO"
    until(lambda: program("console", "web").out == "web is up: loud=1\n")

    halted = program("halt", "web", "--json").document
    assert halted["end"] == {"reason": "halted", "code": 0, "signal": 0, "traceback": "", "forced": False}
    assert halted["instance"]["state"] == "loaded"
    assert program("console", "web").out == "web is up: loud=1\nasked to halt\n"

    assert program("exec", "web", "--json").document["instance"]["epoch"] == 2
    killed = program("kill", "web", "--json").document
    assert (killed["end"]["reason"], killed["end"]["signal"]) == ("killed", signal.SIGKILL)

    assert program("boot", "web", "--json").document["instance"]["epoch"] == 3
    assert program("reboot", "web", "--json").document["instance"]["epoch"] == 4
    program("halt", "web")
    assert program("unload", "web", "--json").document["instance"]["state"] == "ready"
    assert program("delete", "web", "--json").document["instance"]["name"] == "web"
    assert program("show", "--json").document["instances"] == []


def test_steps_talk_on_stderr_and_print_nothing(cli, machine):
    for step in (["create", "web"], ["load", "web", "echo.py"], ["start", "web"], ["halt", "web"], ["unload", "web"],
                 ["delete", "web"]):  # fmt: skip
        ran = cli(*step)
        assert ran.out == ""
        assert ran.err.count("\n") == 1
        assert "web" in ran.err


@pytest.mark.parametrize(
    "words", [["web", "echo.py"], ["web", "-k", "echo.py"], ["--id", "7", "echo.py"], ["--id", "7", "-k", "echo.py"],
              ["web", "--id", "7", "echo.py"]], ids=" ".join,
)  # fmt: skip
def test_an_image_and_an_instance_can_be_given_as_kerf_has_it(words, cli, machine):
    cli("create", "web", "--id", "7")
    assert cli("load", *words, "--json").document["instance"]["state"] == "loaded"


def test_an_instance_is_found_by_its_id_and_by_nothing_else(cli, machine):
    cli("create", "web", "--id", "7")
    assert cli("unload", "--id", "7", status=1).err == cli("unload", "web", status=1).err
    assert "web" in cli("unload", "--id", "8", status=4).err
    assert "7" in cli("unload", "web", "--id", "8", status=2).err
    assert "'web'" in cli("unload", "wep", status=4).err


def test_a_number_of_cpus_is_enough(cli, machine, cpus):
    got = cli("create", "web", "--cpu-count", str(len(cpus)), "--json").document["instance"]["cpus"]
    assert got == list(cpus)
    assert cli("create", "db", "--cpu-count", "1", "--json", status=5).document["error"]["type"] == "ResourceError"


def test_cpus_can_be_shared_among_those_that_agree(cli, machine, cpus):
    one = str(cpus[0])
    cli("create", "web", "--cpus", one, "--shared")
    cli("create", "db", "--cpus", one, status=5)
    shared = cli("create", "db", "--cpus", one, "--shared", "--json").document["instance"]
    assert (shared["cpus"], shared["exclusive"]) == ([cpus[0]], False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["web"],
        ["db", "--cpus", "8000"],
        ["db", "--memory", "1T"],
        ["db", "--memory", "1K"],
        ["db", "--id", "7"],
        ["db", "--cpus", "none"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_had_is_refused_with_5_dry_or_not(arguments, cli, machine):
    cli("create", "web", "--id", "7", "--memory", "1M")
    before = cli("show", "--json").document
    real = cli("create", *arguments, "--json", status=5).document["error"]
    dry = cli("create", *arguments, "--dry-run", "--json", status=5).document["error"]
    assert (real["type"], dry["type"]) == ("ResourceError", "ResourceError")
    after = cli("show", "--json").document
    assert (after["instances"], after["pool"]) == (before["instances"], before["pool"])


def test_a_dry_step_changes_nothing_and_says_what_it_would_do(cli, machine):
    def dry(*arguments: str) -> None:
        before = cli("show", "--json").document["instances"]
        assert cli(*arguments, "--dry-run", "--json").document["dry_run"] is True
        assert "would" in cli(*arguments, "--dry-run").err
        assert cli("show", "--json").document["instances"] == before

    dry("create", "web")
    cli("create", "web")
    dry("load", "web", "echo.py")
    dry("delete", "web")
    cli("load", "web", "echo.py")
    dry("start", "web")
    dry("unload", "web")
    dry("delete", "web", "--force")
    cli("start", "web")
    dry("send", "web", "x")
    dry("reboot", "web")
    dry("halt", "web")
    dry("kill", "web")
    dry("shutdown")
    dry("run", "db", "echo.py") if len(os.sched_getaffinity(0)) > 1 else None


@pytest.mark.parametrize(
    ("step", "status"),
    [
        (["start", "web"], 1),
        (["unload", "web"], 1),
        (["reboot", "web"], 3),
        (["halt", "web"], 3),
        (["kill", "web"], 3),
        (["send", "web", "x"], 3),
        (["send", "web", "x", "--dry-run"], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_step_that_is_not_legal_names_the_state_and_what_is(step, status, cli, machine):
    cli("create", "web")
    ran = cli(*step, status=status)
    assert "it is ready" in ran.err
    assert "load, delete" in ran.err
    assert ran.err.count("\n") == 1
    assert state(cli, "web") == "ready"


@pytest.mark.parametrize(
    "step", [["load", "web", "echo.py"], ["delete", "web"], ["delete", "web", "--force"]], ids=" ".join
)
def test_what_an_active_instance_cannot_have_done_is_refused_with_1(step, cli, web):
    assert "it is active" in cli(*step, status=1).err
    assert state(cli, web) == "active"


def test_delete_wants_force_when_an_image_is_loaded(cli, machine):
    cli("create", "web")
    cli("load", "web", "echo.py")
    assert "--force" in cli("delete", "web", status=1).err
    assert state(cli, "web") == "loaded"
    cli("delete", "web", "--force")
    cli("show", "web", status=4)


def test_kill_with_force_does_not_mind_one_that_does_not_run(cli, machine):
    cli("create", "web")
    assert cli("kill", "web", "--force", "--json").document["end"] is None


# --- images that are refused, or fail


def test_an_image_that_is_not_there_is_refused_with_6(cli, machine):
    cli("create", "web")
    for dry in ([], ["--dry-run"]):
        assert "nowhere.py" in cli("load", "web", "nowhere.py", *dry, status=6).err
        assert cli("load", "web", "no.such.module", "--json", *dry, status=6).document["error"]["type"] == "ImageError"
    assert state(cli, "web") == "ready"


def test_modules_are_found_where_the_command_is_typed(cli, machine, directory):
    (directory / "package").mkdir()
    (directory / "package" / "__init__.py").touch()
    (directory / "package" / "server.py").write_text(ECHO)
    cli("create", "web")
    cli("load", "web", "package.server")
    cli("start", "web", "--until", "ready")
    assert cli("send", "web", "found", "--request").out == "FOUND"


def test_an_image_that_raises_shows_its_own_traceback_and_not_ours(cli, machine, directory):
    (directory / "broken.py").write_text("import json\nnumber = json.loads('{')\n")
    cli("create", "web")
    cli("load", "web", "broken.py")
    ran = cli("start", "web", status=1)
    assert ran.out == ""
    assert "JSONDecodeError" in ran.err
    assert "multikernel/cli" not in ran.err
    assert state(cli, "web") == "failed"


def test_an_image_that_never_gets_ready_is_given_up_in_time(cli, machine):
    cli("create", "web")
    cli("load", "web", "deaf.py")
    error = cli("start", "web", "--until", "ready", "--timeout", "0.3", "--json", status=1).document["error"]
    assert error["type"] == "BootError"
    assert "0.3 s" in error["message"]


def test_one_that_is_still_booting_can_be_killed(cli, machine, shell, directory):
    (directory / "slow.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(60)\ndef main(kernel): ...\n"
    )
    cli("create", "web")
    cli("load", "web", "slow.py")
    booting = shell("start", "web", "--until", "ready")
    until(lambda: cli("console", "web").out == "importing\n")
    cli("kill", "web")
    _, err = booting.communicate(timeout=PATIENCE)
    assert booting.returncode == 1
    assert "it was killed" in err


# --- messages and consoles


def test_a_request_prints_the_reply_byte_for_byte(cli, program, web):
    assert program("send", web, "-", "--request", stdin="one\ntwo\n").out == "ONE\nTWO\n"
    document = cli("send", web, "hi", "--request", "--json").document
    assert document["bytes"] == 2
    assert document["reply"] | {"sender": 0} == {
        "type": 0x4000, "subtype": 0, "sender": 0, "payload": "HI", "encoding": "utf-8"
    }  # fmt: skip


def test_a_payload_that_is_no_text_is_told_in_base64(cli, machine, directory):
    (directory / "raw.py").write_text(
        "def main(kernel):\n    for message in kernel.messages():\n        message.reply(b'\\xff\\x00', subtype=9)\n"
    )
    cli("create", "web")
    cli("load", "web", "raw.py")
    cli("start", "web")
    reply = cli("send", "web", "--request", "--json").document["reply"]
    assert (reply["payload"], reply["encoding"], reply["subtype"]) == ("/wA=", "base64", 9)


def test_a_reply_that_has_nowhere_to_go_is_no_error(web, directory):
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "send", web, "hello", "--request"]
    done = subprocess.run(command, cwd=directory, stderr=subprocess.PIPE, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_message_larger_than_the_smallest_link_gets_a_larger_link(program, web):
    sent = "x" * 300_000
    assert program("send", web, "-", "--request", stdin=sent).out == sent.upper()


def test_a_message_without_request_arrives(cli, machine, directory):
    (directory / "print.py").write_text(
        "def main(kernel):\n"
        "    for message in kernel.messages():\n"
        "        print(message.type, message.subtype, bytes(message.payload).decode())\n"
    )
    cli("create", "web")
    cli("load", "web", "print.py")
    cli("start", "web")
    ran = cli("send", "web", "hello", "--type", "0x1234", "--subtype", "7")
    assert ran.out == ""
    cli("halt", "web")
    assert cli("console", "web").out == f"{0x1234} 7 hello\n"


def test_what_is_the_hosts_alone_to_send_is_refused(cli, web):
    ran = cli("send", web, "x", "--type", "0x3000", "--subtype", "0x3002", status=1)
    assert "host" in ran.err
    assert state(cli, web) == "active"


def test_a_reply_that_does_not_come_is_7(cli, machine):
    cli("create", "web")
    cli("load", "web", "deaf.py")
    cli("start", "web")
    began = time.monotonic()
    ran = cli("send", "web", "hello", "--request", "--timeout", "0.3", "--json", status=7)
    assert time.monotonic() - began < 20
    assert ran.document["error"]["type"] == "Timeout"
    cli("kill", "web")


def test_halt_forces_one_that_does_not_listen_and_says_so(cli, machine):
    cli("create", "web")
    cli("load", "web", "deaf.py")
    cli("start", "web")
    cli("halt", "web", "--timeout", "0.2", "--no-force", status=7)
    assert state(cli, "web") == "active"
    ran = cli("halt", "web", "--timeout", "0.2")
    assert "did not stop in time and was killed" in ran.err
    assert state(cli, "web") == "loaded"


def test_a_console_is_followed_to_the_end_with_the_instances_status(cli, web, shell):
    second = shell("console", web, "--follow")
    assert read_line(second) == "web is up: loud=1\n"
    cli("halt", web)
    out, err = second.communicate(timeout=PATIENCE)
    assert (out, err, second.returncode) == ("asked to halt\n", "", 0)


def test_a_ctrl_c_on_a_console_leaves_the_instance_running(cli, web, shell):
    second = shell("console", web, "-f")
    read_line(second)
    second.send_signal(signal.SIGINT)
    _, err = second.communicate(timeout=PATIENCE)
    assert second.returncode == 130
    assert "Traceback" not in err
    assert state(cli, web) == "active"


def test_start_can_stay_on_the_console_and_pass_on_the_status(cli, machine, directory):
    (directory / "brief.py").write_text("def main(kernel):\n    print('brief')\n    return 5\n")
    cli("create", "web")
    cli("load", "web", "brief.py")
    ran = cli("start", "web", "--console", status=5)
    assert ran.out == "brief\n"
    assert state(cli, "web") == "failed"


def test_a_console_is_shown_once_however_long_it_is_followed(cli, machine, shell, directory):
    (directory / "counting.py").write_text(
        "import time\n"
        "def main(kernel):\n"
        "    for number in range(300):\n"
        "        print(number)\n"
        "        time.sleep(0.002)\n"
    )
    running = shell("run", "counting.py")
    out, _ = running.communicate(timeout=PATIENCE)
    assert out.split() == [str(number) for number in range(300)]


def test_the_console_of_one_that_was_killed_is_still_there(cli, web):
    cli("kill", web)
    assert cli("console", web).out == "web is up: loud=1\n"
    said = cli("console", web, "--json").document  # the line, or what was still on its way to the console
    assert "".join(line["text"] + "\n" for line in said["lines"]) + said["unread"] == "web is up: loud=1\n"


# --- the view


def test_show_lists_what_there_is(cli, web):
    summary, _, header, row = cli("show").out.splitlines()
    assert summary.startswith("default: persistent, host pid ")
    assert header.split() == ["NAME", "ID", "STATE", "PID", "EPOCH", "CPUS", "MEMORY", "IMAGE"]
    assert row.split()[0] == web
    assert row.split()[2] == "active"
    assert row.split()[-1] == "echo.py"


def test_show_tells_of_one_in_detail(cli, web):
    lines = dict(line.split(":", 1) for line in cli("show", web).out.splitlines())
    assert lines["state"].strip() == "active"
    assert lines["cmdline"].strip() == "loud=1"
    assert lines["last end"].strip() == "none yet" or "status" in lines["last end"]


def test_show_tells_of_one_that_failed_and_why(cli, machine, directory):
    (directory / "failing.py").write_text("def main(kernel):\n    raise ValueError('on \\x1b[31mpurpose')\n")
    cli("create", "web")
    cli("load", "web", "failing.py")
    cli("start", "web", "--console", status=1)
    ran = cli("show", "web")
    assert "exception, status 1" in ran.out
    assert "ValueError: on " in ran.out
    assert "\x1b" not in ran.out  # what an instance wrote is not obeyed by the terminal
    document = cli("show", "web", "--json").document["instance"]
    assert document["last_end"]["reason"] == "exception"
    assert "ValueError" in document["last_end"]["traceback"]


def test_show_says_when_the_host_shares_an_instances_cpu(cli, machine, cpus):
    assert cli("show", "--json").document["notes"] == []
    cli("create", "web", "--cpus", ",".join(map(str, cpus)))
    others = os.sched_getaffinity(0) - set(cpus)
    notes = cli("show", "--json").document["notes"]
    assert [("web" in note) for note in notes] == ([] if others else [True])


def test_verbose_says_what_was_joined_and_the_status_of_one(cli, web):
    assert "joined machine 'default'" in cli("ls", "--verbose").err
    assert "Heartbeat" in cli("show", web, "--verbose").out.split("\n\n")[1]


def test_the_view_is_listed_and_read(cli, web):
    top = cli("ls").out.split()
    assert {"version", "uptime", "cpuinfo", "meminfo", "interrupts", "kimages", "instances/"} <= set(top)
    assert cli("ls", "instances").out.split() == ["web/"]
    files = cli("ls", "/instances/web/").out.split()
    assert {"status", "cmdline", "image", "cpus", "memory", "interrupts", "links", "console"} <= set(files)
    assert "active" in cli("cat", "instances/web/status").out
    until(lambda: cli("cat", "instances/web/console").out == cli("console", web).out == "web is up: loud=1\n")
    listed = cli("ls", "instances/web", "--json").document["entries"]
    assert {"name": "status", "kind": "file"} in listed
    read = cli("cat", "instances/web/cmdline", "version", "--json").document["files"]
    assert list(read) == ["instances/web/cmdline", "version"]
    assert "loud=1" in json.dumps(read["instances/web/cmdline"])
    assert "status" in cli("cat", "instances/web", "--json").document["files"]["instances/web"]


def test_a_path_that_is_not_there_is_4_with_what_is(cli, web):
    assert "status" in cli("cat", "instances/web/stat", status=4).err
    assert "is a directory" in cli("cat", "instances", status=4).err
    assert "instances" in cli("ls", "nowhere", status=4).err


def test_names_complete(program, web):
    def complete(line: str) -> list[str]:
        words = line.split(" ")
        ran = program(_MULTIKERNEL_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
        return [each.partition(",")[2] for each in ran.out.split()]

    assert complete("multikernel halt w") == ["web"]
    assert complete("multikernel halt x") == []
    assert complete("multikernel send ") == ["web"]
    assert complete("multikernel show -M d") == ["default"]
    assert complete("multikernel cat instances/web/cm") == ["instances/web/cmdline"]


# --- run


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("return 0", 0),
        ("return 3", 3),
        ("import sys; sys.exit(4)", 4),
        ("raise RuntimeError('on purpose')", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("import os, signal; os.kill(os.getpid(), signal.SIGUSR1)", 128 + signal.SIGUSR1),
    ],
    ids=lambda value: value.split(";")[0] if isinstance(value, str) else str(value),
)
def test_run_passes_on_the_instances_own_status(body, status, cli, directory):
    (directory / "image.py").write_text(f"def main(kernel):\n    print('it ran', flush=True)\n    {body}\n")
    ran = cli("run", "image.py", status=status)
    assert ran.out.startswith("it ran\n")
    assert ("on purpose" in ran.out) == ("on purpose" in body)


def test_run_needs_no_machine_and_leaves_none(cli, directory):
    (directory / "image.py").write_text("def main(kernel):\n    print(kernel.name, kernel.cmdline)\n")
    assert cli("run", "image.py", "--cmdline", "a b").out == "image a b\n"
    assert cli("run", "other", "image.py").out == "other \n"
    cli("show", status=3)


def test_run_as_a_document_has_the_console_on_stderr(cli, directory):
    (directory / "image.py").write_text("def main(kernel):\n    print('talk')\n    return 3\n")
    ran = cli("run", "image.py", "--json", status=3)
    assert ran.document["exit_status"] == 3
    assert ran.document["end"]["code"] == 3
    assert "talk" in ran.err


def test_run_of_an_image_that_is_refused_is_6(cli):
    cli("run", "nowhere.py", status=6)
    cli("show", status=3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_an_interrupted_run_halts_the_instance(number, cli, shell, directory):
    (directory / "echo.py").write_text(ECHO)
    running = shell("run", "web", "echo.py", "--cmdline", "now")
    assert read_line(running) == "web is up: now\n"
    assert state(cli, "web") == "active"
    running.send_signal(number)
    out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 128 + number
    assert out == "asked to halt\n"
    assert "Traceback" not in err
    cli("show", status=3)


def test_an_interrupted_run_ends_one_that_does_not_listen_also_when_told_twice(cli, shell, directory):
    (directory / "deaf.py").write_text(DEAF)
    running = shell("run", "deaf.py")
    assert read_line(running) == "up\n"
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None
    assert "again" in running.stderr.readline()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130
    assert "Traceback" not in err
    cli("show", status=3)


def test_run_joins_a_machine_that_runs(cli, machine, shell):
    running = shell("run", "web", "echo.py")
    read_line(running)
    assert cli("show", "--json").document["instances"][0]["name"] == "web"
    cli("halt", "web")
    running.communicate(timeout=PATIENCE)
    assert running.returncode == 0
    assert state(cli, "web") == "loaded"


def test_a_run_goes_on_when_the_host_is_killed(cli, machine, shell):
    running = shell("run", "web", "echo.py")
    read_line(running)
    killed = cli("show", "--json").document["host"]["pid"]
    os.kill(killed, signal.SIGKILL)
    cli("halt", "web")
    running.communicate(timeout=PATIENCE)
    assert running.returncode == 0
    assert cli("show", "--json").document["host"]["pid"] != killed


def test_a_run_whose_machine_is_gone_says_so(cli, machine, program, shell):
    running = shell("run", "web", "deaf.py")
    read_line(running)
    with mk.Machine.attach(machine) as joined:
        census = joined._membership.request("census", {})
        everything = [joined.pid, census["zygote"], joined["web"].pid]
    for pid in everything:  # so that none is there to start another, or to be taken over
        os.kill(pid, signal.SIGSTOP)
    for pid in everything:
        os.kill(pid, signal.SIGKILL)
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 1
    assert err.count("\n") == 1
    assert machine in err
    program("init")  # for the fixture to end


def test_run_can_leave_it_running_or_nothing_at_all(cli, machine, directory):
    cli("run", "web", "echo.py", "--detach")
    assert state(cli, "web") == "active"
    cli("kill", "web")
    cli("delete", "web", "--force")
    (directory / "image.py").write_text("def main(kernel):\n    return 0\n")
    cli("run", "once", "image.py", "--rm")
    cli("run", "once", "image.py", "--rm")
    assert cli("show", "--json").document["instances"] == []


def test_a_run_that_nobody_reads_any_more_ends_the_instance(cli, machine, directory):
    """As in `multikernel run web image.py 2>&1 | head -n 1`, on a machine that stays."""
    (directory / "chatty.py").write_text(CHATTY)
    reads, writes = os.pipe()
    running = subprocess.Popen([*COMMAND, "run", "web", "chatty.py"], cwd=directory, stdout=writes, stderr=writes)
    os.close(writes)
    assert os.read(reads, 4) == b"line"
    os.close(reads)
    assert running.wait(timeout=PATIENCE) == 141
    assert state(cli, "web") == "loaded"


def test_a_run_that_is_interrupted_removes_what_it_was_to_remove(cli, machine, shell):
    running = shell("run", "web", "deaf.py", "--rm")
    read_line(running)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=PATIENCE)
    assert running.returncode == 130
    assert cli("show", "--json").document["instances"] == []


def test_who_has_booted_what_has_ended_by_now_is_told_how(cli, machine, directory):
    (directory / "dies.py").write_text(
        "import os\ndef main(kernel):\n    kernel.wait(0)\n    os.kill(os.getpid(), 9)\n"
    )
    cli("create", "web")
    cli("load", "web", "dies.py")
    cli("start", "web", "--until", "ready")
    with mk.Machine.attach(machine) as joined:
        assert describe.now(joined["web"]) == f"pid {joined['web'].pid}"
        with joined["web"].attach() as typed:
            typed.write(b"\n")
        joined["web"].wait(timeout=PATIENCE)
        assert describe.now(joined["web"]) == "and it has ended by now: signal, SIGKILL"


def test_that_the_host_may_run_where_instances_do_is_said_once_a_cpu(cli, machine, cpus):
    """There may be hundreds of them."""
    for number in range(3):
        cli("create", f"web{number}", "--cpus", str(cpus[0]), "--shared", "--memory", "1M")
    with mk.Machine.attach(machine) as joined:
        os.sched_setaffinity(joined.pid, {cpus[0]})
    assert cli("show").err == f"note: the host may run on cpu {cpus[0]}, which 'web0' and 2 more have\n"


def test_a_run_that_cannot_start_leaves_no_instance(cli, machine, directory):
    (directory / "broken.py").write_text("raise RuntimeError\n")
    cli("run", "web", "nowhere.py", status=6)
    cli("run", "web", "broken.py", status=1)
    assert cli("show", "--json").document["instances"] == []


def test_a_machine_that_answers_no_more_is_7(cli, machine, monkeypatch):
    """Whoever joins needs the host; a stopped one is not waited for without limit."""
    monkeypatch.setattr(membership, "_JOINS_WITHIN", 0.5)  # of ten seconds
    pid = cli("show", "--json").document["host"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        error = cli("show", "--json", status=7).document["error"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert error["type"] == "Timeout"
    assert f"the host of machine {machine!r} does not answer: it is stopped, or hangs" in error["message"]


def test_a_broken_pipe_of_a_run_is_quiet_and_ends_it(cli, directory):
    (directory / "chatty.py").write_text(CHATTY)
    running = subprocess.Popen(
        [*COMMAND, "run", "chatty.py"], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert read_line(running) == "line\n"
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    assert running.wait(timeout=PATIENCE) == 141
    assert "Traceback" not in running.stderr.read()
    running.stderr.close()
    cli("show", status=3)


def test_the_document_of_an_error_has_the_fields_of_the_error(cli, machine):
    cli("create", "web", "--id", "3")
    error = cli("halt", "web", "--json", status=3).document["error"]
    assert error["type"] == "StateError"
    assert error["fields"]["state"] == "ready"
    assert error["fields"]["legal"] == ["load", "delete", "load --panic"]
    assert json.dumps(error)


def test_the_run_directory_is_the_only_place_where_a_machine_shows(cli, machine):
    run = Path(os.environ["MULTIKERNEL_RUN"])
    assert [entry.name for entry in run.iterdir()] == [machine]
