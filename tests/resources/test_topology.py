from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from multikernel.errors import ResourceError
from multikernel.resources.topology import Topology, allowed, check_usable, online

# Machines that nobody here owns, as trees of sysfs and procfs.


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def cpu(number: int, *, package: int = 0, siblings: str | None = None) -> dict[str, str]:
    directory = f"sys/devices/system/cpu/cpu{number}/topology"
    files = {f"{directory}/physical_package_id": f"{package}\n"}
    if siblings is not None:
        files[f"{directory}/thread_siblings_list"] = f"{siblings}\n"
    return files


def two_sockets_with_smt() -> dict[str, str]:
    """Eight cpus as Linux numbers them: first one thread of each core, then the other."""
    files = {
        "sys/devices/system/cpu/online": "0-7\n",
        "sys/devices/system/node/online": "0-1\n",
        "sys/devices/system/node/node0/cpulist": "0-1,4-5\n",
        "sys/devices/system/node/node1/cpulist": "2-3,6-7\n",
        "proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) 6\nstepping\t: 1\n",
    }
    for number in range(8):
        core = number % 4
        files |= cpu(number, package=core // 2, siblings=f"{core},{core + 4}")
    return files


def arm_without_smt_with_holes() -> dict[str, str]:
    """Cpus 1 and 2 are offline; no packages (-1), no NUMA; a model from the device tree only."""
    return {
        "sys/devices/system/cpu/online": "0,3\n",
        **cpu(0, package=-1, siblings="0"),
        **cpu(3, package=-1, siblings="3"),
        "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n\nprocessor\t: 3\n",
        "proc/device-tree/model": "Raspberry Pi 5 Model B\0",
    }


def one_sibling_offline() -> dict[str, str]:
    """SMT switched off for one core: its file still names the sibling that is not online."""
    return {
        "sys/devices/system/cpu/online": "0-2\n",
        **cpu(0, siblings="0-1"),
        **cpu(1, siblings="0-1"),
        **cpu(2, siblings="2-3"),
    }


def memory_only_node() -> dict[str, str]:
    """A node that is memory without cpus (CXL): its list is empty."""
    return {
        "sys/devices/system/cpu/online": "0\n",
        "sys/devices/system/node/online": "0,2\n",
        "sys/devices/system/node/node0/cpulist": "0\n",
        "sys/devices/system/node/node2/cpulist": "\n",
    }


def test_two_sockets_with_smt(tmp_path):
    topology = Topology.read(write(tmp_path, two_sockets_with_smt()))
    assert topology == Topology(
        cpus=tuple(range(8)),
        packages={0: (0, 1, 4, 5), 1: (2, 3, 6, 7)},
        cores=((0, 4), (1, 5), (2, 6), (3, 7)),
        nodes={0: (0, 1, 4, 5), 1: (2, 3, 6, 7)},
        model="Intel(R) Xeon(R) 6",
    )
    assert topology.siblings(6) == (2, 6)


def test_arm_without_smt_numa_and_packages_and_with_holes(tmp_path):
    topology = Topology.read(write(tmp_path, arm_without_smt_with_holes()))
    assert topology == Topology((0, 3), {0: (0, 3)}, ((0,), (3,)), {}, "Raspberry Pi 5 Model B")
    assert topology.siblings(1) == ()


def test_sibling_that_is_offline_is_no_sibling(tmp_path):
    assert Topology.read(write(tmp_path, one_sibling_offline())).cores == ((0, 1), (2,))


def test_node_without_cpus_is_there_and_empty(tmp_path):
    assert Topology.read(write(tmp_path, memory_only_node())).nodes == {0: (0,), 2: ()}


def test_container_that_hides_sysfs_has_what_cpuinfo_says(tmp_path):
    files = {"proc/cpuinfo": "processor\t: 0\nmodel name\t: X\n\nprocessor\t: 2\nmodel name\t: X\n"}
    assert Topology.read(write(tmp_path, files)) == Topology((0, 2), {0: (0, 2)}, ((0,), (2,)), {}, "X")


def test_nothing_at_all_is_an_empty_topology(tmp_path):
    assert Topology.read(tmp_path) == Topology((), {}, (), {}, "unknown")


@pytest.mark.parametrize("nonsense", ["", "\n", "x", "0-", "0-99999999999", "\0" * 10])
def test_nonsense_in_any_file_is_done_without(tmp_path, nonsense):
    files = dict.fromkeys(two_sockets_with_smt(), nonsense)
    assert Topology.read(write(tmp_path, files)) == Topology((), {}, (), {}, "unknown")


def test_topology_of_this_machine_covers_each_cpu_once():
    topology = Topology.read()
    assert topology.cpus == online()
    assert sorted(cpu for core in topology.cores for cpu in core) == list(topology.cpus)
    assert sorted(cpu for cpus in topology.packages.values() for cpu in cpus) == list(topology.cpus)


def test_topology_cannot_be_changed_by_who_reads_it():
    with pytest.raises(TypeError):
        Topology.read().packages[0] = ()


def test_allowed_is_the_affinity_of_this_process(cpus):
    code = (
        "import os; from multikernel.resources.topology import allowed; "
        f"os.sched_setaffinity(0, [{cpus[-1]}]); print(allowed())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert result.stdout == f"({cpus[-1]},)\n"
    assert allowed() == tuple(sorted(os.sched_getaffinity(0)))


def test_cpus_that_do_not_exist_are_refused_with_those_that_may_be_used(cpus):
    assert check_usable([cpus[0], cpus[0]]) == (cpus[0],)
    with pytest.raises(ResourceError, match=r"cpu 8000 is not there or offline.*may use") as caught:
        check_usable([cpus[0], 8000])
    assert (caught.value.asked, caught.value.free, caught.value.conflicts) == (
        (cpus[0], 8000),
        allowed(),
        ((8000, ()),),
    )


@pytest.mark.two_cpus
def test_cpus_outside_the_affinity_are_refused(cpus):
    code = (
        "import os; from multikernel.resources.topology import check_usable\n"
        f"os.sched_setaffinity(0, [{cpus[0]}])\n"
        f"try: check_usable([{cpus[1]}])\n"
        "except ValueError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert f"cpu {cpus[1]} is outside this process's affinity" in result.stdout
    assert f"may use {cpus[0]}." in result.stdout
