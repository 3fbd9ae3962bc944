"""Try each facility of this host that the library uses or may use, and say what its lack costs.

Every facility is tried by making the call, in a child process of its own with a time limit; nothing is inferred from
a version, and nothing is left behind.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from .attempt import Status, attempt
from .facilities import PROCESS_FACILITIES, Facility
from .isolation_facilities import ISOLATION_FACILITIES
from .memory_facilities import MEMORY_FACILITIES

FACILITIES = (*PROCESS_FACILITIES, *MEMORY_FACILITIES, *ISOLATION_FACILITIES)


@dataclass(frozen=True)
class Finding:
    """What trying one facility gave."""

    name: str
    status: Status
    needed: bool
    tried: str
    answer: str
    cost: str  # "" where the status is ok
    remedy: str  # likewise


@dataclass(frozen=True)
class Report:
    """What this host has. `ok` is whether the library can work on it at all."""

    system: dict[str, str | int]
    findings: tuple[Finding, ...]

    @property
    def missing(self) -> tuple[Finding, ...]:
        """The findings that keep the library from working."""
        return tuple(found for found in self.findings if found.needed and found.status is Status.MISSING)

    @property
    def ok(self) -> bool:
        """Whether nothing is missing that the library cannot do without."""
        return not self.missing

    def document(self) -> dict[str, object]:
        """The report as plain data, with stable keys; what a bug report can carry."""
        return {"ok": self.ok, "system": self.system, "facilities": [asdict(found) for found in self.findings]}


def examine(facilities: Iterable[Facility] = FACILITIES, *, started: Callable[[str], None] | None = None) -> Report:
    """Try each of `facilities`, one after the other.

    Args:
        facilities: what to try.
        started: called with each facility's name before it is tried.

    Returns:
        A finding for each, in the order given. Nothing is raised for what this system lacks.
    """
    findings = []
    for facility in facilities:
        if started is not None:
            started(facility.name)
        findings.append(_try(facility))
    return Report(system=system(), findings=tuple(findings))


def system() -> dict[str, str | int]:
    """What the report is about. For its reader: no finding depends on it."""
    from multikernel import __version__

    kernel = os.uname()
    return {
        "multikernel": __version__,
        "python": platform.python_version(),
        "kernel": kernel.release,
        "architecture": kernel.machine,
        "uid": os.getuid(),
    }


def _try(facility: Facility) -> Finding:
    answer = attempt(facility.probe, facility.seconds, facility.undo)
    fine = answer.status is Status.OK
    return Finding(
        name=facility.name,
        status=answer.status,
        needed=facility.needed,
        tried=facility.tried,
        answer=answer.text,
        cost="" if fine else facility.cost,
        remedy="" if fine else facility.remedy,
    )
