"""Each text, read back by a parser: what the pages said is what comes out."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from typing import Any

import pytest

import multikernel
from multikernel._core import ffi, lib
from multikernel.resources.topology import Topology
from multikernel.shm.pages import PHASES, Counters, End, ImageRecord, InstanceRecord, Supervised
from multikernel.units import parse_cpus


def unescaped(text: str) -> str:
    """What a backslash and three octal digits stand for, as in /proc/PID/mountinfo."""
    raw = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text.encode())
    return raw.decode()


def parse_pairs(text: str) -> dict[str, str]:
    """As /proc/PID/status."""
    lines = [line.split(":\t", 1) for line in text.splitlines()]
    assert len({name for name, _ in lines}) == len(lines), "a name twice"
    return dict(lines)  # type: ignore[arg-type]


def parse_meminfo(text: str) -> dict[str, int]:
    """Kibibytes, by name."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(\S+): +([0-9]+) kB", line)
        assert match, line
        found[match[1]] = int(match[2])
    return found


def parse_interrupts(text: str) -> dict[str, dict[str, int | None]]:
    """Counts by column and row, as of /proc/interrupts."""
    header, *rows = text.splitlines()
    names = [unescaped(name) for name in header.split()]
    found: dict[str, dict[str, int | None]] = {name: {} for name in names}
    for row in rows:
        label, _, cells = row.partition(":")
        for name, cell in zip(names, cells.split(), strict=True):
            found[name][label.strip()] = None if cell == "-" else int(cell)
        if names:
            assert len(row) == len(header), "the last column is right-aligned under its name"
    return found


def parse_cpuinfo(text: str) -> list[dict[str, str]]:
    return [dict(line.split("\t: ", 1) for line in part.splitlines()) for part in text.split("\n\n")]


def parse_table(text: str) -> list[dict[str, str]]:
    header, *rows = [line.split() for line in text.splitlines()]
    return [dict(zip(header, row, strict=True)) for row in rows]


def parse_kimages(text: str) -> list[dict[str, Any]]:
    header, rule, *rows = text.splitlines()
    columns = ["MK_ID", "Type", "Size", "Digest", "Signature", "Loaded", "Running", "Imports", "Name"]
    assert header.split() == columns
    assert set(rule) == {"-", " "}
    found = []
    for row in rows:
        its: dict[str, Any] = dict(zip(columns, row.split(maxsplit=len(columns) - 1), strict=True))
        for number in ("MK_ID", "Size"):
            its[number] = int(its[number])
        for words in ("Loaded", "Running", "Imports"):
            its[words] = [] if its[words] == "-" else [unescaped(each) for each in its[words].split(",")]
        found.append(its | {"Name": unescaped(its["Name"])})
    return found


# --- of the machine


def test_version(busy):
    match = re.fullmatch(
        r"multikernel version (\S+) \(abi ([0-9]+)\) machine (\S+) "
        r"\(host pid ([0-9]+), (ephemeral|persistent), ([0-9]+) clients\) (\S+)\n",
        busy.proc["version"],
    )
    assert match
    assert match.groups() == (
        multikernel.__version__,
        str(lib.MK_ABI_VERSION),
        "demo",
        str(os.getpid()),
        "ephemeral",
        "1",
        "2023-11-14T22:13:20+00:00",
    )
    busy.page.write_machine(replace(busy.machine, persistent=True, name="my machine"))
    assert r"machine my\040machine (host" in busy.proc["version"]
    assert "persistent" in busy.proc["version"]


def test_uptime(busy):
    busy.page.write_machine(replace(busy.machine, boot_time_ns=time.monotonic_ns() - 90 * 10**9))
    before = time.monotonic()
    seconds = float(busy.proc["uptime"])
    assert 89.99 <= seconds <= 90.01 + time.monotonic() - before + 1


def test_cpuinfo(busy):
    cpus = parse_cpuinfo(busy.proc["cpuinfo"])
    assert [int(cpu["processor"]) for cpu in cpus] == [0, 1]
    assert [unescaped(cpu["held by"]) for cpu in cpus] == ["my db", "web"]
    assert [cpu["exclusive"] for cpu in cpus] == ["yes", "no"]
    topology = Topology.read()
    for cpu in cpus:
        assert unescaped(cpu["model name"]) == topology.model
        assert parse_cpus(cpu["core cpus"]) == topology.siblings(int(cpu["processor"]))


def test_cpuinfo_of_shared_free_and_absent_cpus(world):
    world.page.write_machine(replace(world.machine, cpus=(0, 1000)))
    for number, name in enumerate(("a,b", "-"), start=1):
        world.record(InstanceRecord(number, name, exclusive=False, cpus=(0,)))
    shared, absent = parse_cpuinfo(world.proc["cpuinfo"])
    assert [unescaped(name) for name in shared["held by"].split(",")] == ["a,b", "-"]
    assert (absent["processor"], absent["online"], absent["physical id"], absent["held by"]) == ("1000", "no", "-", "-")


def test_meminfo(busy):
    assert parse_meminfo(busy.proc["meminfo"]) == {
        "PoolTotal": 256 << 10,
        "PoolUsed": 96 << 10,
        "PoolFree": 160 << 10,
        "Images": 1,
        "Instance(web)": 64 << 10,
        r"Instance(my\040db)": 32 << 10,
    }
    assert busy.proc.snapshot("meminfo")["instances"] == {"web": 64 << 20, "my db": 32 << 20}


def test_interrupts_have_a_column_an_instance_and_a_row_a_vector_that_ever_came(busy):
    assert parse_interrupts(busy.proc["interrupts"]) == {
        "web": {"5": 3, "63": 4, "TOT": 7},
        "my db": {"5": 0, "63": 0, "TOT": 0},
    }


def test_interrupts_of_long_names_and_counts_stay_in_their_columns(world):
    name = "n" * 64
    world.record(InstanceRecord(1, name, "active", epoch=1))
    status, _ = world.incarnate(1, 1)
    status.ipi(0, 2**60)
    world.record(InstanceRecord(2, "b", "active", epoch=1))
    table = parse_interrupts(world.proc["interrupts"])
    assert table == {name: {"0": 2**60, "TOT": 2**60}, "b": {"0": None, "TOT": None}}


def test_kimages(busy):
    busy.record(InstanceRecord(2, "my db, too", "loaded", image=1))
    assert parse_kimages(busy.proc["kimages"]) == [
        {
            "MK_ID": 1,
            "Type": "script",
            "Size": 1234,
            "Digest": "ab" * 32,
            "Signature": "cd" * 8,
            "Loaded": ["web", "my db, too"],
            "Running": ["web"],
            "Imports": ["python=3.11.7", "numpy=2.4", "helper=-"],
            "Name": "server.py:main",
        }
    ]
    values = busy.proc.snapshot("kimages")[0]
    assert (values["instances"], values["running"]) == (["web", "my db, too"], ["web"])
    assert values["imports"][1:] == [{"name": "numpy", "version": "2.4"}, {"name": "helper", "version": "-"}]
    busy.page.clear_image(0)
    assert busy.proc["kimages"] == "No kimages loaded\n"


# --- of an instance


def test_status_of_a_running_instance(busy):
    its = parse_pairs(busy.proc["instances/web/status"])
    expected = {
        "Name": "web",
        "Id": "1",
        "State": "active",
        "Pid": str(os.getpid()),
        "Epoch": "2",
        "Cpus": "1",
        "Exclusive": "no",
        "Memory": "65536 kB",
        "Image": "server.py:main",
        "PageEpoch": "2",
        "Phase": "ready",
        "Links": "2",
        "Sent": "0",
        "LastEnd": "-",
        "LastEndSignal": "-",
    }
    assert {name: its[name] for name in expected} == expected
    assert "Torn" not in its
    assert int(its["Cpu"]) in os.sched_getaffinity(0)
    for name in ("Since", "HeartbeatAge"):
        assert re.fullmatch(r"[0-9]+\.[0-9]{3} s", its[name])
    times = [float(its[f"Phase{phase.title()}"].removesuffix(" ms")) for phase in PHASES if phase != "ending"]
    assert times == sorted(times)
    assert times[0] == 0
    assert its["PhaseEnding"] == "-"


def test_status_counts_what_the_links_counted(world):
    world.record(InstanceRecord(1, "web", "active", epoch=1))
    status, _ = world.incarnate(1, 1)
    for link in (status.link(2, 4096), status.link(3, 4096)):
        words = ffi.cast("uint64_t *", link)  # as a lane's end counts
        for i in range(11):
            words[i] = i + 1
    its = parse_pairs(world.proc["instances/web/status"])
    names = list(its)[list(its).index("Sent") : list(its).index("Stalls") + 1]
    assert names == [
        *("Sent", "SentBytes", "Received", "ReceivedBytes", "IpisSent", "IpisReceived"),
        *("Spins", "Parks", "Wakes", "Spurious", "Stalls"),
    ]
    assert [int(its[name]) for name in names] == list(range(2, 24, 2))
    assert [link["stalls"] for link in parse_table(world.proc["instances/web/links"])] == ["11", "11"]


def test_status_of_how_it_ended(world):
    world.record(
        InstanceRecord(1, "web", "failed", epoch=1, end=End("exception", 1, 0, "Traceback\n  x\nValueError: a\\b\n"))
    )
    its = parse_pairs(world.proc["instances/web/status"])
    assert [its[f"LastEnd{part}"] for part in ("", "Code", "Signal", "Forced")] == ["exception", "1", "0", "no"]
    assert unescaped(its["LastEndError"]) == "ValueError: a\\b"
    world.record(InstanceRecord(1, "web", "loaded", epoch=1, end=End("halted", 0, 9, forced=True)))
    its = parse_pairs(world.proc["instances/web/status"])
    assert [its[f"LastEnd{part}"] for part in ("", "Code", "Signal", "Forced", "Error")] == [
        "halted",
        "0",
        "9 (SIGKILL)",
        "yes",
        "-",
    ]


def test_no_value_can_look_like_a_line_of_its_own(world):
    """The names of files and the words of a traceback come from outside."""
    name = "a\nState:\tactive\u2028 \\101ü.py:main"
    world.page.write_image(0, ImageRecord(1, "script", name, 1, "00" * 32, 1))
    world.record(InstanceRecord(1, "web", "loaded", image=1, end=End("x\nPid:\t1", traceback="E\rPid:\t1")))
    its = parse_pairs(world.proc["instances/web/status"])
    assert its["State"] == "loaded"
    assert its["Pid"] == "0"
    assert unescaped(its["Image"]) == name
    assert unescaped(its["LastEnd"]) == "x\nPid:\t1"
    assert unescaped(parse_pairs(world.proc["instances/web/image"])["Name"]) == name
    assert parse_kimages(world.proc["kimages"])[0]["Name"] == name


def test_cmdline_is_as_it_was_given(busy):
    assert busy.proc["instances/web/cmdline"] == "port=80 \\ x\n"
    assert busy.proc["instances/my db/cmdline"] == "\n"


def test_image(busy):
    assert parse_pairs(busy.proc["instances/web/image"]) == {
        "Id": "1",
        "Type": "script",
        "Size": "1234 bytes",
        "Digest": "ab" * 32,
        "Signature": "cd" * 8,
        "Users": "1",
        "Imports": "python 3.11.7, numpy 2.4, helper -",
        "Name": "server.py:main",
    }
    assert busy.proc["instances/my db/image"] == "No kimage loaded\n"
    assert busy.proc.snapshot("instances/my db/image") is None


@pytest.mark.parametrize(("cpus", "text"), [((1,), "1\n"), ((0, 1, 2, 5), "0-2,5\n"), ((), "none\n")])
def test_cpus(world, cpus, text):
    world.record(InstanceRecord(1, "web", cpus=cpus))
    assert world.proc["instances/web/cpus"] == text
    assert parse_cpus(text) == cpus


def test_memory(busy):
    assert parse_meminfo(busy.proc["instances/web/memory"]) == {
        "Budget": 64 << 10,
        "Image": 1,
        "Initrd": 20,
        "Console": 64,
        "Links": 68,
        "Named": 0,
    }
    assert parse_meminfo(busy.proc["instances/my db/memory"]) == {
        "Budget": 32 << 10,
        "Image": 0,
        "Initrd": 0,
        "Console": 0,
        "Links": 0,
        "Named": 0,
    }


def test_interrupts_of_one_instance(busy):
    assert parse_interrupts(busy.proc["instances/web/interrupts"]) == {"web": {"5": 3, "63": 4, "TOT": 7}}


def test_links(busy):
    first, second = parse_table(busy.proc["instances/web/links"])
    assert (first["peer_id"], first["peer"], first["capacity"], first["sent"]) == ("2", "instance", "65536", "0")
    assert (second["peer_id"], second["peer"], second["capacity"]) == ("512", "client", "4096")
    assert list(first)[3:] == list(Counters.__dataclass_fields__)
    assert parse_table(busy.proc["instances/my db/links"]) == []


def test_console_is_as_it_was_printed(busy):
    assert busy.proc["instances/web/console"] == "hello\nworld"
    lines = busy.proc.snapshot("instances/web/console")["lines"]
    assert [(line["text"], line["partial"]) for line in lines] == [("hello", False), ("world", True)]
    assert busy.proc["instances/my db/console"] == ""


def test_times_from_the_future_and_the_past_are_no_negative_times(world):
    """A clock that a page's writer has made up must not make the view say nonsense, or a watcher do it."""
    later = time.monotonic_ns() + 10**15
    supervised = Supervised(restart="always", restart_at_ns=1, hung_since_ns=later, watchdog_ns=1, claimed_ns=later)
    world.record(InstanceRecord(1, "web", state_time_ns=later, supervised=supervised))
    status = world.proc.snapshot("instances/web/status")
    assert (status["since_ns"], status["restart_in_ns"], status["hung_ns"]) == (0, 0, 0)
