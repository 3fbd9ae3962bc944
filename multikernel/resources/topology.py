"""Which cpus there are and how they hang together: packages, cores, SMT siblings, NUMA nodes.

Sources: Documentation/ABI/stable/sysfs-devices-system-cpu, .../sysfs-devices-node, proc_cpuinfo(5). Containers and
some machines lack any of these files; what is not said is filled in as the simplest machine: each cpu a core, all in
package 0, no NUMA nodes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from multikernel.errors import ResourceError
from multikernel.units import format_cpus, parse_cpus

Cpus = tuple[int, ...]


def online() -> Cpus:
    """The cpus that are running now, ascending."""
    return _online(Path("/"))


def allowed() -> Cpus:
    """The cpus that this process may use (its affinity: taskset, cpusets), ascending."""
    return tuple(sorted(os.sched_getaffinity(0)))


def check_usable(cpus: Iterable[int]) -> Cpus:
    """`cpus`, ascending, if this process may use them all.

    Raises:
        ResourceError: there are none, or some do not exist or are outside its affinity; fields `asked`, `free` (those
            that it may use) and `conflicts` (as of `Pool.reserve`: pairs of a cpu that it may not use and the names
            that hold it, none).
    """
    asked, usable, running = parse_cpus(cpus), allowed(), online()
    if not asked:
        raise ResourceError(
            f"cannot use no cpus: one is needed at least. This process may use {format_cpus(usable)}.",
            asked=asked,
            free=usable,
            conflicts=(),
        )
    refused = tuple(cpu for cpu in asked if cpu not in usable)
    if refused:
        reasons = ", ".join(
            f"cpu {cpu} is outside this process's affinity" if cpu in running else f"cpu {cpu} is not there or offline"
            for cpu in refused
        )
        raise ResourceError(
            f"cannot use cpus {format_cpus(asked)}: {reasons}. This process may use {format_cpus(usable)}.",
            asked=asked,
            free=usable,
            conflicts=tuple((cpu, ()) for cpu in refused),
        )
    return asked


@dataclass(frozen=True)
class Topology:
    """The online cpus of one machine. All tuples of cpus ascend.

    Attributes:
        cpus: all of them.
        packages: cpus by number of the socket.
        cores: the cpus of each core: one, or its SMT siblings; in the order of the lowest.
        nodes: cpus by number of the NUMA node, those without memory too; empty where the system has no NUMA.
        model: what the processor calls itself; "unknown" if it does not say.
    """

    cpus: Cpus
    packages: Mapping[int, Cpus]
    cores: tuple[Cpus, ...]
    nodes: Mapping[int, Cpus]
    model: str

    @classmethod
    def read(cls, root: str | Path = "/") -> Topology:
        """Read it from the `sys` and `proc` under `root`. A file that is missing or makes no sense is done without."""
        root = Path(root)
        cpus = _online(root)
        packages: dict[int, Cpus] = {}
        cores: set[Cpus] = set()
        for cpu in cpus:
            directory = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
            package = max(0, _number(directory / "physical_package_id"))  # virtual machines may say -1
            packages[package] = (*packages.get(package, ()), cpu)
            siblings = _list(directory / "core_cpus_list") or _list(directory / "thread_siblings_list")
            cores.add(tuple(each for each in siblings if each in cpus) or (cpu,))
        return cls(
            cpus=cpus,
            packages=MappingProxyType(dict(sorted(packages.items()))),
            cores=tuple(sorted(cores)),
            nodes=MappingProxyType(_nodes(root, cpus)),
            model=_model(root),
        )

    def siblings(self, cpu: int) -> Cpus:
        """The cpus of `cpu`'s core, itself among them; empty if it is not online."""
        return next((core for core in self.cores if cpu in core), ())


def _online(root: Path) -> Cpus:
    listed = _list(root / "sys/devices/system/cpu/online")
    if listed:
        return listed
    processors = re.findall(r"^processor\s*:\s*([0-9]+)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return tuple(sorted({int(number) for number in processors}))


def _nodes(root: Path, cpus: Cpus) -> dict[int, Cpus]:
    directory = root / "sys/devices/system/node"
    nodes = {}
    for node in _list(directory / "online"):
        nodes[node] = tuple(cpu for cpu in _list(directory / f"node{node}/cpulist") if cpu in cpus)
    return nodes


def _model(root: Path) -> str:
    cpuinfo = _text(root / "proc/cpuinfo")
    for key in ("model name", "Model", "cpu model", "cpu"):  # x86; Raspberry Pi; MIPS; POWER
        match = re.search(rf"^{key}\s*: *(\S.*)$", cpuinfo, re.MULTILINE)
        if match:
            return match[1].strip()
    return _text(root / "proc/device-tree/model").strip("\0\n ") or "unknown"  # arm64, RISC-V


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int:
    try:
        return int(_text(path))
    except ValueError:
        return 0


def _list(path: Path) -> Cpus:
    """A list as the kernel writes it, of cpus or of nodes; a node without cpus has an empty one."""
    try:
        return parse_cpus(_text(path).strip() or "none")
    except ValueError:
        return ()
