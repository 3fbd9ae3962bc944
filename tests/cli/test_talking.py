"""What the commands show of instances, and say to them: messages, consoles, the view."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

from tests.eventually import PATIENCE, until

from .conftest import COMMAND, read_line, state

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
    shared = [f"the host may run on cpu {cpu}, which 'web' has" for cpu in cpus]
    assert notes == ([] if others else shared)


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
