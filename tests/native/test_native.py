"""What is a native instance's own: how it is started, its memory, its timers, its errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from multikernel.image.cmdline import Params
from tests.eventually import PATIENCE

from .build import IMAGES, build

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def peer(tmp_path_factory) -> Path:
    return build(IMAGES / "peer.c", tmp_path_factory.mktemp("native"), "-rdynamic")


@pytest.fixture(scope="module")
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(cpus=sorted(os.sched_getaffinity(0))[:2], memory="512M") as machine:
        yield machine


@pytest.fixture
def web(machine, peer) -> Iterator[mk.Instance]:
    web = machine.create("web", memory="16M")
    web.load(str(peer))
    yield web
    if web.state == "active":
        web.kill()
    web.delete()


@pytest.fixture
def link(machine, web) -> Iterator[mk.Link]:
    web.boot(timeout=PATIENCE)
    with machine.connect("web", capacity="64K") as link:
        yield link


def ask(link: mk.Link, text: str) -> str:
    return link.request(text.encode(), timeout=PATIENCE).payload.decode()


CMDLINES = (
    "",
    "a=1 flag a=2",
    'text="two words" "odd name"=3 "whole=in quotes" x="y z"w',
    "  log-level=7\tlog_level=8   ",
    "a=b=c =5 ==6 = empty=",
    'a="" b=" " ""',
    "a=1 -- b=2 -- c",
    "-- a=1",
    'a=1 "--" b=2 "-- c=3"',
    "--a=1 ---",
    'a"b=c"d e',
)


@pytest.mark.parametrize("cmdline", CMDLINES)
def test_parameters_are_those_that_python_reads(machine, peer, cmdline):
    web = machine.create("web", memory="16M")
    web.load(str(peer), cmdline=cmdline)
    web.boot(timeout=PATIENCE)
    params = Params(cmdline)
    names = {*params, "a", "b", "c", "log-level", "nothing"}
    with machine.connect("web", capacity="64K") as link:
        for name in names:
            value = params.get(name, "(none)")
            assert (name, ask(link, f"param {name}")) == (name, "" if value is True else value)
    web.kill()
    web.delete()


def test_timers_run_in_the_loop_and_end_when_they_are_cancelled(link):
    assert ask(link, "timers") == "0 1 1"


def test_messages_of_the_hosts_types_are_refused(link):
    assert "are the host's alone to send" in ask(link, "refused")


def test_a_link_that_never_was_is_refused(link):
    assert "there is no link 1000000" in ask(link, "nowhere")


def test_one_that_does_not_look_is_killed_after_the_halts_time_out(link, web):
    assert ask(link, "spin") == "spinning"
    end = web.halt(timeout=0.05)
    assert (end.reason, end.forced, web.state) == ("halted", True, "loaded")


def test_an_echo_takes_less_than_a_mebibyte_of_private_memory(link, web):
    for _ in range(100):
        assert ask(link, "hello") == "hello"
    assert 0 < int(ask(link, "private")) < 1024  # KiB


@pytest.mark.parametrize("verb", ["crash", "overflow"])
def test_a_crash_leaves_a_backtrace_in_the_panic_report(link, web, verb):
    link.send(verb.encode())
    assert web.wait(timeout=PATIENCE).signal == signal.SIGSEGV
    panic = web.panic
    assert panic is not None
    assert panic.threads.startswith("Fatal signal: segmentation fault\n")
    assert f"({verb}+0x" in panic.threads
    assert [message.length for message in panic.messages] == [len(verb)]


def test_a_core_file_is_left_by_one_that_was_created_so(machine, peer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the system may put it
    web = machine.create("web", memory="16M", core=True)
    web.load(str(peer))
    web.boot(timeout=PATIENCE)
    limits = Path(f"/proc/{web.pid}/limits").read_text().splitlines()
    (core,) = [line.split() for line in limits if line.startswith("Max core file size")]
    assert core[4] == core[5]  # soft and hard
    with machine.connect("web", capacity="64K") as link:
        link.send(b"crash")
        assert web.wait(timeout=PATIENCE).signal == signal.SIGSEGV
    web.delete()


def test_one_that_is_hung_is_killed_with_a_backtrace(machine, peer):
    web = machine.create("web", memory="16M", watchdog=0.2, on_hang="dump")
    web.load(str(peer))
    web.boot(timeout=PATIENCE)
    with machine.connect("web", capacity="64K") as link:
        link.send(b"spin")
        link.send(b"unread")
        assert web.wait(timeout=PATIENCE).reason == "watchdog"
    assert web.panic is not None
    assert web.panic.threads.startswith("Fatal signal: aborted\n")
    web.delete()


def test_a_crash_image_has_the_report_of_the_dead_one(machine, peer):
    web = machine.create("web", memory="16M")
    web.load(str(peer))
    web.load(str(peer), panic=True)
    web.boot(timeout=PATIENCE)
    with machine.connect("web", capacity="64K") as link:
        assert ask(link, "panic") == "(none)"
        link.send(b"crash")
        assert link.recv(timeout=PATIENCE).payload == b"crash"  # which comes to the crash image, too
        report = json.loads(ask(link, "panic"))
    assert (report["name"], report["epoch"], report["signal"]) == ("web", 1, signal.SIGSEGV)
    web.kill()
    web.delete()


def test_a_file_is_its_initrd(machine, peer, tmp_path):
    (tmp_path / "data").write_bytes(b"some\0data")
    web = machine.create("web", memory="16M")
    web.load(str(peer), initrd=tmp_path / "data")
    web.boot(timeout=PATIENCE)
    with machine.connect("web", capacity="64K") as link:
        assert link.request(b"initrd", timeout=PATIENCE).payload == b"some\0data"
        assert ask(link, "initrd data") == "(none)"
    web.kill()
    web.delete()


def test_the_files_of_a_directory_are_its_initrd(machine, peer, tmp_path):
    files = {
        "a": b"1",
        "empty": b"",
        "sub/b": bytes(range(256)) * 3,
        f"sub/{'long' * 30}/{'name' * 30}": b"far",
        "gr\u00fc\u00dfe": b"hello",
    }
    for name, content in files.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    web = machine.create("web", memory="16M")
    web.load(str(peer), initrd=tmp_path / "data")
    web.boot(timeout=PATIENCE)
    with machine.connect("web", capacity="64K") as link:
        for name, content in files.items():
            assert link.request(f"initrd {name}".encode(), timeout=PATIENCE).payload == content
        for name in ("sub", "sub/", "b", "/a", "./a", "A"):
            assert ask(link, f"initrd {name}") == "(none)"
    web.kill()
    web.delete()


def test_without_an_initrd_there_is_none(link):
    assert ask(link, "initrd") == "(none)"
    assert ask(link, "initrd a") == "(none)"


def test_what_was_loaded_runs_whatever_has_happened_to_the_file(machine, peer, tmp_path):
    copy = tmp_path / "peer"
    copy.write_bytes(peer.read_bytes())
    copy.chmod(0o755)
    web = machine.create("web", memory="16M")
    web.load(str(copy))
    copy.unlink()
    web.boot(timeout=PATIENCE)
    with machine.connect("web", capacity="64K") as link:
        assert ask(link, "hello") == "hello"
    web.kill()
    web.delete()


def test_it_has_only_the_descriptors_that_it_was_given_and_made(link, web, machine):
    """Those of the host, of the zygote and of other instances are none of its business."""
    targets = [ask(link, f"readlink /proc/self/fd/{fd}") for fd in range(100)]
    names = {target.split(":")[1].split(" ")[0] for target in targets if target.startswith("/memfd:")}
    assert names <= {"image", "machine", "manifest", "status", "console", "lane", "crash"}
    assert f"/memfd:manifest:{web.name} (deleted)" not in targets  # read, and closed
    assert not [target for target in targets if target.endswith((".sock", "lock"))]


def test_what_it_starts_is_no_instance(link):
    assert ask(link, "getenv PATH") == os.environ["PATH"]
    assert ask(link, "getenv MULTIKERNEL_MANIFEST") == "(none)"


def test_a_directory_that_is_gone_is_an_error_and_the_instance_stays_loaded(machine, peer, tmp_path, monkeypatch):
    directory = tmp_path / "gone"
    directory.mkdir()
    monkeypatch.chdir(directory)
    web = machine.create("web", memory="16M")
    web.load(str(peer))
    monkeypatch.chdir(tmp_path)
    directory.rmdir()
    with pytest.raises(mk.MultikernelError, match=r"cannot enter .*gone.*Load it again"):
        web.boot(timeout=PATIENCE)
    assert web.state == "loaded"
    web.delete()


def test_a_program_that_never_attaches_is_no_instance(machine, tmp_path):
    source = tmp_path / "other.c"
    source.write_text(
        "#include <multikernel/kernel.h>\n#include <stdio.h>\n"
        'int main(int argc, char **argv) { (void)argv; puts("no instance"); return argc > 9 && mk_kernel_attach(); }\n'
    )
    web = machine.create("web", memory="16M")
    web.load(str(build(source, tmp_path)))
    with pytest.raises(mk.BootError, match="no instance"):
        web.boot(timeout=PATIENCE)
    assert web.state == "failed"
    web.delete()


def test_a_program_that_was_not_booted_says_so(peer):
    done = subprocess.run([peer], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "was not booted as one: multikernel run" in done.stderr


@pytest.mark.parametrize(
    ("manifest", "said"),
    [("three", "is no number of a descriptor"), ("4000", "it is not sealed"), ("1", "is no number")],
)
def test_a_manifest_that_is_none_is_refused(peer, manifest, said):
    environment = {**os.environ, "MULTIKERNEL_MANIFEST": manifest}
    done = subprocess.run([peer], capture_output=True, text=True, timeout=30, check=False, env=environment)
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.slow
def test_many_boots_leave_nothing(machine, web):
    def descriptors() -> int:
        return machine._membership.request("census", {})["descriptors"]

    web.boot(timeout=PATIENCE)
    web.halt(timeout=PATIENCE)
    before = descriptors()
    for _ in range(50):
        web.boot(timeout=PATIENCE)
        assert web.halt(timeout=PATIENCE).reason == "halted"
    assert descriptors() <= before


READS = """
#include <multikernel/kernel.h>
#include <stdio.h>

int main(void)
{
	char line[100];
	mk_kernel *k = mk_kernel_attach();

	if (!k || !fgets(line, sizeof(line), stdin))
		return 1;
	printf("read %s", line);
	return mk_kernel_exit(k, 7);
}
"""


def test_what_is_typed_to_a_native_instance_is_its_standard_input(machine, tmp_path):
    source = tmp_path / "reads.c"
    source.write_text(READS)
    web = machine.create("reads", memory="16M")
    web.load(str(build(source, tmp_path)))
    web.boot(timeout=PATIENCE)
    with web.attach() as typed:
        typed.write(b"a line\n")
        assert web.wait(timeout=PATIENCE).code == 7
    assert machine.proc["instances/reads/console"] == "read a line\n"
    web.delete()
