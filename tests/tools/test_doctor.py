"""The doctor tries; it does not guess, hang, or leave anything behind (the last is checked after every test)."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from multikernel.tools import attempt, doctor, facilities, memory_facilities
from multikernel.tools.attempt import Answer, Status
from tests.eventually import PATIENCE


def find(report: doctor.Report, name: str) -> doctor.Finding:
    return next(found for found in report.findings if found.name == name)


def facility(name: str) -> facilities.Facility:
    return next(each for each in doctor.FACILITIES if each.name == name)


@pytest.fixture(scope="module")
def report() -> doctor.Report:
    return doctor.examine()


def test_every_facility_is_tried_once_and_answers(report):
    names = [found.name for found in report.findings]
    assert names == [each.name for each in doctor.FACILITIES]
    assert len(set(names)) == len(names)
    for found in report.findings:
        assert found.tried
        assert found.answer
        assert "\n" not in found.answer


@pytest.mark.parametrize(
    "name",
    ["membarrier", "futex_waitv", "seals", "cgroups", "realtime", "hugetlb", "fuse", "pidfd", "mlock", "landlock",
     "user_namespaces", "cpus", "execution", "isolated_cpus", "perf", "thp", "futex"],
)  # fmt: skip
def test_what_users_were_promised_is_among_them(report, name):
    find(report, name)


def test_a_lack_says_what_it_costs_and_what_to_do_and_nothing_else_does(report):
    for found in report.findings:
        assert bool(found.cost) == bool(found.remedy) == (found.status is not Status.OK)


def test_the_document_is_plain_json_with_the_same_findings(report):
    document = json.loads(json.dumps(report.document()))
    assert document["ok"] == report.ok
    assert [each["name"] for each in document["facilities"]] == [found.name for found in report.findings]
    assert {each["status"] for each in document["facilities"]} <= {"ok", "limited", "missing"}
    assert set(document["facilities"][0]) == {"name", "status", "needed", "tried", "answer", "cost", "remedy"}


def test_this_system_has_what_the_other_tests_rest_on(report):
    assert report.ok, [f"{found.name}: {found.answer}" for found in report.missing]


def test_the_caller_stays_as_it_was(report):
    def state():
        return (
            os.sched_getaffinity(0),
            os.sched_getscheduler(0),
            os.readlink("/proc/self/ns/user"),
            Path("/proc/self/cgroup").read_text(),
            signal.getsignal(signal.SIGALRM),
        )

    before = state()
    doctor.examine()
    assert state() == before


def test_a_probe_that_hangs_is_ended_and_is_missing():
    began = time.monotonic()
    gone: list[int] = []
    answer = attempt.attempt(signal.pause, seconds=0.2, undo=gone.append)
    assert answer == Answer(Status.MISSING, "no answer within 0.2 s")
    assert time.monotonic() - began < PATIENCE
    assert not Path(f"/proc/{gone[0]}").exists()


def test_a_probe_that_is_killed_names_the_signal():
    answer = attempt.attempt(lambda: os.kill(os.getpid(), signal.SIGSYS), seconds=5)
    assert answer == Answer(Status.MISSING, "the try was killed by SIGSYS")


def test_a_refused_call_is_named_with_its_errno():
    def probe() -> Answer:
        with attempt.call("open(/nowhere)"):
            os.open("/nowhere/at/all", os.O_RDONLY)
        return Answer(Status.OK, "opened")

    answer = attempt.attempt(probe, seconds=5)
    assert answer == Answer(Status.MISSING, "open(/nowhere): ENOENT (No such file or directory)")


def test_a_result_of_the_core_is_told_by_its_errno():
    assert attempt.checked("call", 7) == 7
    with pytest.raises(attempt.Refused, match="call: ENOSYS"):
        attempt.checked("call", -errno.ENOSYS)


def test_a_mistake_in_a_probe_is_its_answer():
    answer = attempt.attempt(lambda: {}["nothing"], seconds=5)
    assert answer == Answer(Status.MISSING, "KeyError: 'nothing'")


def test_a_probe_says_nothing_on_the_callers_streams(capfd):
    def probe() -> Answer:
        raise RuntimeError("only in the answer")

    attempt.attempt(probe, seconds=5)
    assert capfd.readouterr() == ("", "")


def test_a_missing_facility_is_reported_and_a_needed_one_decides():
    """The seals probe in a process that may open no more descriptors: the call is made, and refused."""

    def probe() -> Answer:
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, lowest_free))
        return memory_facilities.seals()

    seals = facility("seals")
    report = doctor.examine([facilities.Facility(**{**vars(seals), "probe": probe})])
    assert report.findings[0].answer == "memfd_create: EMFILE (Too many open files)"
    assert report.findings[0].remedy == seals.remedy
    assert not report.ok
    assert doctor.examine([seals]).ok


def test_one_cpu_is_limited_and_named(cpus):
    def probe() -> Answer:
        os.sched_setaffinity(0, {cpus[-1]})
        return facilities.cpus()

    answer = attempt.attempt(probe, seconds=5)
    assert answer.status is Status.LIMITED
    assert answer.text.startswith("1 of ")
    assert f"({cpus[-1]})" in answer.text


def test_execution_is_not_claimed_where_there_is_nothing_to_try_it_with(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    answer = attempt.attempt(memory_facilities.execution, seconds=5)
    assert (answer.status, answer.text) == (Status.LIMITED, "there is no program `true` to try it with")


def test_a_run_directory_that_cannot_be_had_ends_the_command_with_77():
    ran = subprocess.run(
        [sys.executable, "-m", "multikernel", "doctor", "--json"],
        env={**os.environ, "MULTIKERNEL_RUN": "/proc/nowhere"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    document = json.loads(ran.stdout)
    assert ran.returncode == 77, ran.stderr
    assert not document["ok"]
    missing = [each["name"] for each in document["facilities"] if each["needed"] and each["status"] == "missing"]
    assert missing == ["sockets"]


def test_what_a_killed_probe_left_is_removed():
    """The undo of a probe gets the pid that it had, and the probe's name for what it makes has that pid in it."""
    made: list[Path] = []

    def undo(pid: int) -> None:
        made.append(facilities._socket_directory(pid))
        assert made[0].is_dir()
        facilities.remove_socket_directory(pid)

    def probe() -> Answer:
        facilities._socket_directory(os.getpid()).mkdir()
        signal.pause()
        return Answer(Status.OK, "never")

    attempt.attempt(probe, seconds=0.5, undo=undo)
    assert not made[0].exists()
