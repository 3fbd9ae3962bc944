"""The panic report: what is known of an incarnation that died by itself. Made by the host, kept until the next.

It travels as JSON in a sealed memfd: to every client that watches, so that a dead instance can be looked at while the
host is stopped, and to the crash image that boots in its place.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from multikernel.shm.lane_look import Unread
from multikernel.shm.records import Counters
from multikernel.units import format_cpus

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST = 1 << 20
"""Bytes of a report; what a host writes is far below."""


@dataclass(frozen=True, slots=True)
class Panic:
    """How an incarnation of an instance died, and what it left. Texts are its last part where they are long."""

    name: str
    id: int
    epoch: int
    pid: int
    reason: str
    """As `End.reason`: "exit", "exception", "signal", "boot", "returned", "memory" or "watchdog"."""
    cause: str
    """The same in words, for people."""
    code: int
    """Exit status; 0 when a signal ended it."""
    signal: int
    """0: none."""
    time: float
    """When, in seconds since 1970, UTC."""
    ran: float
    """Seconds from the beginning of its boot."""
    phase: str
    """How far it had come, by its own account; "": it had not made its pages."""
    cpus: tuple[int, ...]
    image: str
    digest: str
    """SHA-256 of its image."""
    cmdline: str
    traceback: str
    """Of the exception that ended it."""
    threads: str
    """What its threads were doing, by faulthandler; "": it did not come to that."""
    console: str
    """The end of what it printed."""
    messages: tuple[Unread, ...]
    """What it had received and was dealing with, and what it had not come to."""
    set_aside: tuple[Unread, ...]
    """What its successors do not get any more, because too many incarnations have died with it in their hands."""
    counters: Counters
    core: str
    """Where its core file is, or why there is none."""
    core_file: str
    """Its path; "": there is none."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The report that `to_json` wrote.

        Raises:
            ValueError: it is none.
        """
        try:
            fields = {field.name: document[field.name] for field in dataclasses.fields(cls)}
            fields["cpus"] = tuple(fields["cpus"])
            for name in ("messages", "set_aside"):
                fields[name] = tuple(Unread(**each) for each in fields[name])
            fields["counters"] = Counters(**fields["counters"])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no panic report: {error}") from None

    @classmethod
    def read(cls, fd: int) -> Self:
        """The report in a descriptor, which stays the caller's.

        Raises:
            ValueError: it is none.
        """
        document = json.loads(os.pread(fd, LARGEST, 0))
        if not isinstance(document, dict):
            raise ValueError("this is no panic report")
        return cls.from_json(document)

    def write(self) -> bytes:
        """As the content of the memfd."""
        return json.dumps(self.to_json()).encode()

    def text(self) -> str:
        """For people: lines, and the longer texts below them."""
        when = dt.datetime.fromtimestamp(self.time, dt.UTC).isoformat(timespec="milliseconds")
        lines = [
            f"Kernel panic: {self.name} (id {self.id}, epoch {self.epoch}, pid {self.pid}): {self.cause}",
            f"Time: {when}, {self.ran:.3f} s after its boot began",
            f"Phase: {self.phase or '-'}",
            f"Cpus: {format_cpus(self.cpus)}",
            f"Image: {self.image} {self.digest}",
            f"Cmdline: {self.cmdline or '-'}",
            f"Core: {self.core}",
            "Counters: " + " ".join(f"{name}={value}" for name, value in dataclasses.asdict(self.counters).items()),
        ]
        lines += _section("Traceback", self.traceback.splitlines())
        lines += _section("Threads", self.threads.splitlines())
        lines += _section("Messages that it had not given back", map(_message, self.messages))
        lines += _section("Messages that were set aside", map(_message, self.set_aside))
        lines += _section("Console", self.console.splitlines())
        return "\n".join([*lines, f"---[ end of the panic of {self.name} ]---\n"])


def signal_name(number: int) -> str:
    """As the system calls it, SIGSEGV; "signal 40" for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _section(title: str, lines: Any) -> list[str]:
    shown = [f"  {line}" for line in lines]
    return [f"{title}:", *shown] if shown else []


def _message(it: Unread) -> str:
    return f"from {it.sender}: type {it.type:#06x}, subtype {it.subtype}, id {it.id}, {it.length} bytes"
