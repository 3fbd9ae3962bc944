"""The commands on machines that run: real hosts and instances, each command a process of its own, as from a shell."""

from __future__ import annotations

import os
import signal

import pytest

from tests.eventually import PATIENCE, until

from .conftest import ECHO, state

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
