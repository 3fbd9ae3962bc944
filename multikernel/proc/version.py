"""`version`: which library and which machine this is, in one line."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import multikernel
from multikernel.proc.words import word
from multikernel.shm.pages import ABI_VERSION

if TYPE_CHECKING:
    from multikernel.proc.reader import Reader


def values(reader: Reader) -> dict[str, Any]:
    """The reader's library and the layout of the pages; the machine's name, host, life, boot time (ISO 8601, UTC)."""
    machine = reader.machine()
    booted = dt.datetime.fromtimestamp(machine.wall_time_ns / 1e9, dt.UTC)
    return {
        "version": multikernel.__version__,
        "abi": ABI_VERSION,
        "machine": machine.name,
        "host_pid": machine.host_pid,
        "persistent": machine.persistent,
        "clients": machine.clients,
        "booted": booted.isoformat(timespec="seconds"),
        "torn": machine.torn,
    }


def text(reader: Reader) -> str:
    """As /proc/version."""
    its = values(reader)
    life = "persistent" if its["persistent"] else "ephemeral"
    return (
        f"multikernel version {its['version']} (abi {its['abi']}) machine {word(its['machine'])} "
        f"(host pid {its['host_pid']}, {life}, {its['clients']} clients) {its['booted']}\n"
    )
