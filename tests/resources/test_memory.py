from __future__ import annotations

import pytest

from multikernel.errors import Unsupported
from multikernel.resources.memory import available

MEMINFO = "MemTotal:       2000 kB\nMemFree:         100 kB\nMemAvailable:   1000 kB\n"


@pytest.fixture
def tree(tmp_path):
    def write(**groups: tuple[str, str, str]):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/meminfo").write_text(MEMINFO)
        (tmp_path / "proc/self/cgroup").write_text("1:cpu:/old\n0::/user/app\n")
        for name, (limit, used, cache) in groups.items():
            directory = tmp_path / "sys/fs/cgroup" / name.replace("_", "/")
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "memory.max").write_text(f"{limit}\n")
            (directory / "memory.current").write_text(f"{used}\n")
            (directory / "memory.stat").write_text(f"anon 1\ninactive_file {cache}\nactive_file 9\n")
        return tmp_path

    return write


def test_memory_is_what_the_kernel_says_is_available(tree):
    assert available(tree()) == 1000 * 1024


def test_limit_of_a_cgroup_counts_without_the_cache_that_can_go(tree):
    assert available(tree(user_app=("5000", "3000", "500"))) == 2500


def test_limit_of_an_outer_cgroup_counts_too(tree):
    assert available(tree(user=("4000", "3000", "0"), user_app=("max", "3000", "0"))) == 1000


def test_cgroup_over_its_limit_leaves_nothing(tree):
    assert available(tree(user_app=("5000", "6000", "0"))) == 0


def test_cgroup_outside_the_process_counts_for_nothing(tree):
    assert available(tree(other=("1", "1", "0"))) == 1000 * 1024


@pytest.mark.parametrize("text", [None, "MemTotal: 5 kB\n"])
def test_system_that_does_not_say_is_unsupported(tmp_path, text):
    if text is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/meminfo").write_text(text)
    with pytest.raises(Unsupported, match="how much memory"):
        available(tmp_path)


def test_memory_of_this_machine_is_some():
    assert available() > 1 << 20
