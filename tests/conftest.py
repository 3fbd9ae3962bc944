"""What every test gets: run directories of its own, and a check that it leaves the machine as it found it."""

from __future__ import annotations

import gc
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import select
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

SETTLE = 30.0  # seconds that the last processes of a test get to end; waited for, not slept for

# Set before any test module is imported, and inherited by every process that a test starts: nothing here meets a
# machine of the user's. A short path of its own, not pytest's: the address of a Unix socket ends at 108 bytes.
RUN = Path(tempfile.mkdtemp(prefix="mk-"))
os.environ["MULTIKERNEL_RUN"] = str(RUN)
os.environ.pop("MULTIKERNEL_MACHINE", None)

# No test depends on a speed; CI tries the same examples each time, so that a red run can be looked at again.
settings.register_profile("multikernel", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("multikernel")

CPUS = os.sched_getaffinity(0)

outcome = pytest.StashKey[bool]()


def pytest_report_header() -> str:
    cpus = sorted(os.sched_getaffinity(0))
    few = "" if len(cpus) > 1 else ": tests that need two are skipped"
    return f"cpus: {', '.join(map(str, cpus))}{few}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("two_cpus") and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cpus, and this process may use one only")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    item.stash[outcome] = item.stash.get(outcome, True) and not report.failed
    return report


def pytest_unconfigure() -> None:
    shutil.rmtree(RUN, ignore_errors=True)


# A shell that runs us in the background has SIGINT ignored, which children inherit: no test of a Ctrl-C would end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def cpus() -> tuple[int, ...]:
    """The first two cpus that this process may use; one where there is only one."""
    return tuple(sorted(os.sched_getaffinity(0))[:2])


@dataclass(frozen=True)
class Footprint:
    """What this test program has of the machine. Each maps what is compared to how it is shown."""

    processes: dict[int, str]
    descriptors: dict[tuple[int, str], str]
    mappings: dict[tuple[str, str], str]
    directories: dict[str, str]
    threads: dict[int, str]
    cpus: dict[int, str]  # that it may not use any more

    @classmethod
    def take(cls, known: frozenset[int] = frozenset()) -> Footprint:
        """Look. Processes among `known` are none of ours: they were there before the test."""
        return cls(
            processes=our_processes(known),
            descriptors=our_descriptors(),
            mappings=our_mappings(),
            directories={entry.name: str(entry) for entry in RUN.iterdir()},
            threads={thread.ident or 0: thread.name for thread in threading.enumerate()},
            cpus={cpu: f"a process that may not use cpu {cpu}" for cpu in CPUS - os.sched_getaffinity(0)},
        )

    def beyond(self, before: Footprint) -> list[str]:
        """One line for each thing that is here and was not there before."""
        lines = []
        for kind in ("processes", "descriptors", "mappings", "directories", "threads", "cpus"):
            was, now = getattr(before, kind), getattr(self, kind)
            lines += [f"{kind}: {now[key]}" for key in now if key not in was]
        return lines


def pids() -> frozenset[int]:
    return frozenset(int(name) for name in os.listdir("/proc") if name.isdigit())


def our_processes(known: frozenset[int], *, certain: bool = False) -> dict[int, str]:
    """Processes that this program or its tests started, whoever has adopted them since.

    Ours are our descendants; those with our run directory in their environment, which a fork keeps; and, of those
    that do not let us read it, those of our user that are called multikernel (unless it must be `certain`).
    """
    parents = {pid: ppid for pid in pids() - known - {os.getpid()} if (ppid := parent(pid)) is not None}
    found = {}
    for pid in parents:
        ancestor: int | None = pid
        while ancestor in parents:
            ancestor = parents[ancestor]
        if not is_spare(pid) and (ancestor == os.getpid() or is_marked(pid, certain=certain)):
            text = described(pid)
            if text is not None:
                found[pid] = text
    return found


def is_spare(pid: int) -> bool:
    """Whether it is a zygote's child in reserve: made whenever the last one was used. It goes with the zygote."""
    return comm(pid) == "mk-spare" and comm(parent(pid) or 0) == "mk-zygote"


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip()
    except OSError:
        return ""


def parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return None


def is_marked(pid: int, *, certain: bool) -> bool:
    mark = f"MULTIKERNEL_RUN={RUN}".encode()
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except PermissionError:
        if certain:
            return False
        text = described(pid)
        return text is not None and "multikernel" in text and f"\nUid:\t{os.getuid()}\t" in status(pid)
    except OSError:
        return False


def status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def described(pid: int) -> str | None:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return None
    return f"pid {pid} ({name}, state {rest.split()[0]}): {command[:200]}"


def our_descriptors() -> dict[tuple[int, str], str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that listed them
            continue
        found[int(name), target] = f"{name} -> {target}"
    return found


def our_mappings() -> dict[tuple[str, str], str]:
    """Memory objects that are mapped here, by device and inode."""
    found = {}
    with open("/proc/self/maps") as maps:
        for line in maps:
            if "/memfd:" in line:
                span, mode, _, device, inode, name = line.split(maxsplit=5)
                found[device, inode] = f"{name.strip()} {mode} at {span}"
    return found


def stop_helpers() -> None:
    """End the two processes that multiprocessing keeps for itself; CPython's own tests do it the same way."""
    multiprocessing.forkserver._forkserver._stop()
    multiprocessing.resource_tracker._resource_tracker._stop()


def settle(before: Footprint, known: frozenset[int]) -> list[str]:
    """Wait until nothing is left beyond `before`, for SETTLE seconds at most. What is left then, a line each."""
    stop_helpers()
    if not (left := Footprint.take(known).beyond(before)):
        return left
    gc.collect()
    deadline = time.monotonic() + SETTLE
    while left := (now := Footprint.take(known)).beyond(before):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            break
        wait_for_end(now.processes, min(remaining, 0.02))
    return left


def wait_for_end(processes: dict[int, str], timeout: float) -> None:
    """Wait until one of the processes ends; where there is none, only for the time."""
    poll = select.poll()
    opened = []
    try:
        for pid, text in processes.items():
            if "state Z" in text:  # it has, and waits for its parent to ask how
                continue
            try:
                opened.append(os.pidfd_open(pid))
            except ProcessLookupError:
                return
            poll.register(opened[-1], select.POLLIN)
        poll.poll(timeout * 1000)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def remove_leftovers(known: frozenset[int], before: Footprint) -> None:
    """So that one test's mess is not the next one's failure."""
    for pid in our_processes(known, certain=True):  # another test run beside this one has such processes, too
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue
    for entry in RUN.iterdir():
        if entry.name not in before.directories:
            shutil.rmtree(entry, ignore_errors=True)
    os.sched_setaffinity(0, CPUS)


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process, descriptor, mapping, run directory or thread more than there was."""
    known = pids()
    before = Footprint.take(known)
    yield
    left = settle(before, known)
    if left:
        remove_leftovers(known, before)
        # The traceback of a failed test still holds what the test had: its own report is the one to read.
        if request.node.stash.get(outcome, True):
            pytest.fail("this test left behind:\n  " + "\n  ".join(left), pytrace=False)
