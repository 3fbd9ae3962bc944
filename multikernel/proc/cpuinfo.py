"""`cpuinfo`: the pool's cpus, where each lies, and who holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from multikernel.proc.words import line, shown, word
from multikernel.units import format_cpus

if TYPE_CHECKING:
    from multikernel.proc.reader import Reader
    from multikernel.resources.topology import Cpus


def values(reader: Reader) -> list[dict[str, Any]]:
    """A cpu each. package, node: None where the system does not say, or the cpu is offline."""
    topology, records = reader.topology, reader.records()
    return [
        {
            "cpu": cpu,
            "online": cpu in topology.cpus,
            "model": topology.model,
            "package": _of(topology.packages, cpu),
            "siblings": list(topology.siblings(cpu)),
            "node": _of(topology.nodes, cpu),
            "held_by": [record.name for record in records if cpu in record.cpus],
            "exclusive": any(record.exclusive for record in records if cpu in record.cpus),
        }
        for cpu in reader.machine().cpus
    ]


def text(reader: Reader) -> str:
    """Paragraphs as those of /proc/cpuinfo."""
    return "\n".join(_paragraph(cpu) for cpu in values(reader))


def _paragraph(cpu: dict[str, Any]) -> str:
    return "".join(
        f"{name}\t: {shown(value)}\n"
        for name, value in (
            ("processor", cpu["cpu"]),
            ("model name", line(cpu["model"])),
            ("online", cpu["online"]),
            ("physical id", cpu["package"]),
            ("core cpus", format_cpus(cpu["siblings"])),
            ("numa node", cpu["node"]),
            ("held by", ",".join(map(word, cpu["held_by"])) or None),
            ("exclusive", cpu["exclusive"]),
        )
    )


def _of(groups: Mapping[int, Cpus], cpu: int) -> int | None:
    return next((number for number, cpus in groups.items() if cpu in cpus), None)
