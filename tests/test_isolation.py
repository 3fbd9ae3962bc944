"""What belongs to another can be read, if one was given it, and never written."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

import multikernel as mk

IMAGES = Path(__file__).parent / "images"


def boot_stray(machine: mk.Machine) -> tuple[mk.Instance, mk.Link]:
    """An instance that holds pages of the host, of another instance and of a client."""
    for name, image in (("echo", "echo.py"), ("stray", "stray.py")):
        instance = machine.create(name, cpus=machine.view.machine().cpus[:1], memory="16M", exclusive=False)
        instance.load(f"{IMAGES / image}:main")
        instance.boot()
    link = machine.connect("stray", capacity="64K")
    assert link.request(b"connect echo", timeout=20).payload == b"connected"
    return machine["stray"], link


def test_a_stray_write_into_any_page_of_another_faults() -> None:
    """The host's pages, a peer's lane and a peer's indices: one death each, and nobody else is hurt."""
    with mk.Machine(memory="64M") as machine:
        stray, link = boot_stray(machine)
        maps = json.loads(link.request(b"maps", timeout=20).payload)
        owners = {name.split(":")[0] for name, _, _ in maps}
        assert owners == {"lane", "machine"}
        assert len(maps) >= 6  # machine, host lane, and from the client and echo: data (mapped twice) and indices
        for n in range(len(maps)):
            if link.closed:
                link.close()
                stray.boot()
                link = machine.connect("stray", capacity="64K")
                assert link.request(b"connect echo", timeout=20).payload == b"connected"
            name, begin, end = sorted(json.loads(link.request(b"maps", timeout=20).payload))[n]
            link.send(b"write %d" % (begin + (end - begin) // 2))
            with pytest.raises(mk.Closed):
                link.recv(timeout=20)
            assert stray.state == "failed", name
            assert stray.last_end is not None
            assert stray.last_end.signal == signal.SIGSEGV
            assert machine["echo"].state == "active"
        link.close()


def test_a_page_of_another_cannot_be_reopened_for_writing() -> None:
    """Every way from a read-only mapping or descriptor to a writable one is refused by the system."""
    with mk.Machine(memory="64M") as machine:
        _, link = boot_stray(machine)
        tried = json.loads(link.request(b"reopen", timeout=20).payload)
        link.close()
    assert tried
    allowed = [what for what, result in tried if result == "ALLOWED"]
    assert not allowed
