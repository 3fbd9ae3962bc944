"""What holds for every command before it does anything: help, options, refusals, errors, exit status."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import click
import pytest

from multikernel import errors
from multikernel.cli import foreign, group, main
from multikernel.host.states import refused

COMMAND = [sys.executable, "-m", "multikernel"]

ALL = list(group.COMMANDS)
CHANGING = ["run", "init", "create", "load", "start", "boot", "reboot", "exec", "send", "halt", "kill", "unload",
            "delete", "shutdown", "sign"]  # fmt: skip
ON_A_MACHINE = [
    *(name for name in CHANGING if name not in ("run", "init", "sign")),
    "show",
    "console",
    "dump",
    "wait",
    "ls",
    "cat",
]
ARGUMENTS = {"load": ["web", "a.py"], "cat": ["version"], "show": [], "ls": [], "shutdown": [], "send": ["web", "hi"]}


def command(name: str) -> click.Command:
    found = group.group.get_command(click.Context(group.group), name)
    assert found is not None
    return found


def in_process(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    said = capsys.readouterr()
    return status, said.out, said.err


def modules_after(*arguments: str, **environment: str) -> set[str]:
    """The modules that a command line has imported when it is done."""
    script = (
        "import sys, atexit\n"
        "from multikernel.cli import main\n"
        "atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))\n"
        f"main({list(arguments)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_help_with_an_example(name, capsys):
    status, out, err = in_process(capsys, name, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: multikernel {name} ")
    assert f"multikernel {name}" in out.split("Example:")[1]


@pytest.mark.parametrize("name", ALL)
def test_every_command_can_print_json(name):
    assert any("--json" in option.opts for option in command(name).params)


@pytest.mark.parametrize("name", CHANGING)
def test_every_command_that_changes_something_has_a_dry_run(name):
    assert any("--dry-run" in option.opts for option in command(name).params)


@pytest.mark.parametrize("name", ON_A_MACHINE)
def test_every_command_on_a_machine_takes_its_name(name):
    assert any("-M" in option.opts and "--machine" in option.opts for option in command(name).params)


def test_help_lists_every_command(capsys):
    status, out, _ = in_process(capsys, "--help")
    lines = [line for line in out.split("Commands:")[1].split("Example:")[0].splitlines() if line.strip()]
    assert (status, [line.split()[0] for line in lines]) == (0, ALL)
    assert not [line for line in lines if line.endswith("...")]  # each says in its line what it does


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["doctor", "--help"], ["--version"]], ids=" ".join
)
def test_help_is_quick_it_loads_neither_numpy_nor_rich_nor_the_machine(arguments):
    loaded = modules_after(*arguments)
    assert "multikernel.cli.group" in loaded
    assert not {"numpy", "rich", "multikernel.machine", "multikernel._core", "asyncio"} & loaded


def test_a_command_loads_no_other_command():
    loaded = {name for name in modules_after("doctor", "--help") if name.startswith("multikernel.cli.")}
    assert "multikernel.cli.doctor" in loaded
    assert not {"multikernel.cli.run", "multikernel.cli.show", "multikernel.cli.demo"} & loaded


def test_nothing_at_all_is_answered_with_the_help_and_2(capsys):
    status, out, err = in_process(capsys)
    assert (status, out) == (2, "")
    assert err.startswith("Usage: multikernel ")


def test_the_version_is_the_packages(capsys):
    from multikernel import __version__

    assert in_process(capsys, "--version") == (0, f"multikernel {__version__}\n", "")


def test_an_unknown_command_is_answered_with_what_it_may_have_been(capsys):
    status, out, err = in_process(capsys, "lod")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "'lod'" in err
    assert "load" in err


def test_a_wrong_option_is_one_line_and_2(capsys):
    status, out, err = in_process(capsys, "create", "web", "--colour")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("multikernel create: ")
    assert "--colour" in err


def test_with_json_a_mistake_is_a_document_too(capsys):
    status, out, err = in_process(capsys, "create", "web", "--memory", "much", "--json")
    error = json.loads(out)["error"]
    assert (status, err) == (2, "")
    assert error["exit_status"] == 2
    assert "much" in error["message"]
    assert set(error) == {"type", "message", "fields", "exit_status"}


@pytest.mark.parametrize(
    ("verb", "option"), [(verb, option) for verb, every in foreign.OPTIONS.items() for option in every],
    ids=lambda value: value if isinstance(value, str) else value.flags.split()[-1],
)  # fmt: skip
def test_what_kerf_has_and_means_nothing_here_is_refused_with_the_reason(verb, option, capsys):
    for flag in option.flags.split():
        status, out, err = in_process(capsys, verb, flag, *(["1"] if option.value else []), "web")
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
        assert option.why in err
        assert option.flags.split()[-1] in err
        assert err.startswith(f"multikernel {verb}: ")


@pytest.mark.parametrize("verb", list(foreign.OPTIONS))
def test_what_is_refused_is_not_advertised(verb, capsys):
    _, out, _ = in_process(capsys, verb, "--help")
    offered = {word.strip(",") for line in out.splitlines() for word in line.split() if line.startswith("  -")}
    for option in foreign.OPTIONS[verb]:
        assert option.flags.split()[-1] not in offered


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["create", "a/b"], "a name has"),
        (["create", "x" * 65], "a name has"),
        (["create", ""], "a name has"),
        (["create", "web", "--cpus", "three"], "three"),
        (["create", "web", "--cpus", "3-1"], "3-1"),
        (["create", "web", "--cpus", "0", "--cpu-count", "1"], "--cpu-count"),
        (["create", "web", "--id", "512"], "512"),
        (["create", "web", "--memory", "-1"], "-1"),
        (["halt"], "which instance"),
        (["halt", "web", "--timeout", "nan"], "nan"),
        (["halt", "web", "--timeout", "-1"], "-1"),
        (["halt", "-M", "a/b", "web"], "a name has"),
        (["send", "web", "hi", "--type", "0x10000"], "0x10000"),
        (["load", "web"], "which image"),
        (["load", "web", "a.py", "b.py"], "a.py"),
        (["load", "--id", "1"], "which image"),
        (["load", "-k", "a.py"], "which instance"),
        (["run"], "IMAGE"),
        (["run", "a", "b.py", "c"], "'c'"),
        (["run", "a/b", "b.py"], "a name has"),
        (["run", "a.py", "--rm", "--detach"], "--rm"),
        (["exec"], "which instance"),
        (["exec", "web", "--console", "--json"], "--console"),
        (["console", "web", "-f", "--json"], "--follow"),
        (["completion", "tcsh"], "tcsh"),
        (["demo", "--input", "/nowhere"], "/nowhere"),
        (["demo", "--cpus", "few"], "few"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_mistake_in_the_command_line_is_one_line_and_2(arguments, complaint, capsys):
    status, out, err = in_process(capsys, *arguments)
    assert status == 2
    assert complaint in (err or out)
    if "--json" not in arguments:
        assert out == ""
        assert err.count("\n") == 1


@pytest.mark.parametrize("name", ON_A_MACHINE)
def test_without_a_machine_the_answer_is_3(name, capsys):
    status, out, err = in_process(capsys, name, *ARGUMENTS.get(name, ["web"]))
    assert (status, out) == (3, "")
    assert err == "multikernel: no machine is running. `multikernel init` makes one that stays.\n"


def test_without_a_machine_detach_is_refused_with_3(capsys):
    status, _, err = in_process(capsys, "run", "a.py", "--detach")
    assert status == 3
    assert "no machine is running" in err


@pytest.mark.parametrize("arguments", [["show"], ["cat", "version"], ["halt", "web"]], ids=" ".join)
def test_a_machine_that_does_not_run_is_4(arguments, capsys):
    status, out, err = in_process(capsys, *arguments, "--machine", "nowhere")
    assert (status, out) == (4, "")
    assert "nowhere" in err


def test_the_machines_name_comes_from_the_environment_too(capsys, monkeypatch):
    monkeypatch.setenv("MULTIKERNEL_MACHINE", "elsewhere")
    status, _, err = in_process(capsys, "show")
    assert status == 4
    assert "elsewhere" in err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.MultikernelError("x"), 1),
        (errors.BootError("x"), 1),
        (errors.Closed("x"), 1),
        (refused("web", "active", "load"), 1),
        (refused("web", "loaded", "halt"), 3),
        (refused("web", "failed", "kill"), 3),
        (refused("web", "ready", "connect to"), 3),
        (refused("web", "active", "delete"), 1),
        (errors.NotFound("x"), 4),
        (errors.ResourceError("x"), 5),
        (errors.ImageError("x"), 6),
        (errors.Timeout("x"), 7),
        (errors.Unsupported("x"), 77),
        (KeyboardInterrupt(), 130),
        (click.UsageError("x"), 2),
        (FileNotFoundError("x"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_each_error_has_its_exit_status(error, status):
    assert group.exit_status(error) == status


def test_debug_adds_the_traceback_and_changes_nothing_else(capsys):
    plain, debugged = in_process(capsys, "show"), in_process(capsys, "--debug", "show")
    assert plain[:2] == debugged[:2] == (3, "")
    assert "Traceback" in debugged[2]
    assert debugged[2].endswith(plain[2])


def test_a_reader_who_has_gone_is_no_error(tmp_path):
    """`multikernel --help | true`: quiet, and as a program that SIGPIPE ends."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*COMMAND, "--help"], stdout=writer, stderr=subprocess.PIPE, timeout=50, check=False, cwd=tmp_path
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("arguments", [["--help"], ["completion", "bash", "--json"]], ids=" ".join)
def test_output_that_cannot_be_written_is_one_line_and_1(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, timeout=50, check=False)
    assert done.returncode == 1
    assert done.stderr == b"multikernel: No space left on device\n"


def test_an_error_that_nobody_can_be_told_keeps_its_status():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "frobnicate"], stdout=full, stderr=full, timeout=50, check=False)
    assert done.returncode == 2


def on_terminal(*arguments: str, **environment: str) -> str:
    """What a command prints when stdout is a terminal."""
    leader, follower = pty.openpty()
    try:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TERM": "xterm", **environment},
        )
        os.close(follower)
        said = b""
        while True:
            try:
                chunk = os.read(leader, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not chunk:
                break
            said += chunk
        process.wait(timeout=50)
    finally:
        os.close(leader)
    return said.decode()


def test_colour_is_for_terminals_that_want_it(cli):
    assert "\x1b[" in on_terminal("doctor")
    assert "\x1b[3" not in on_terminal("doctor", NO_COLOR="1")
    assert "\x1b[3" not in on_terminal("doctor", TERM="dumb")
    assert "\x1b" not in cli("doctor").out


def test_doctors_table_says_what_was_answered(cli):
    ran = cli("doctor")
    lines = {line.split()[0]: line.split()[1] for line in ran.out.split("\n\n")[0].splitlines()}
    found = {each["name"]: each["status"] for each in cli("doctor", "--json").document["facilities"]}
    assert lines.pop("FACILITY") == "STATUS"
    assert lines == found
    assert ran.err.strip() == "multikernel works here."


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_program_and_the_variable(shell, cli):
    script = cli("completion", shell).out
    assert group.COMPLETE in script
    assert "multikernel" in script
    assert cli("completion", shell, "--json").document == {"shell": shell, "script": script}


def test_bash_accepts_its_completion_script(cli):
    script = cli("completion", "bash").out
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [("multikernel un", ["plain,unload"]), ("multikernel halt --no", ["plain,--no-force"])],
    ids=["command", "option"],
)
def test_commands_and_options_complete(line, expected, program):
    words = line.split()
    ran = program(_MULTIKERNEL_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    assert ran.out.split() == expected


def test_completion_loads_neither_numpy_nor_rich():
    loaded = modules_after(_MULTIKERNEL_COMPLETE="bash_complete", COMP_WORDS="multikernel halt ", COMP_CWORD="2")
    assert "click.shell_completion" in loaded
    assert not {"numpy", "rich"} & loaded
