"""Whether the system has killed somebody for want of memory: by the counter of this process's memory cgroup.

Instances are in their host's cgroup, unless somebody has moved them. Where there is no such counter nothing is said.
"""

from __future__ import annotations

import os

_ROOT = "/sys/fs/cgroup"


class OomKills:
    """Counts kills, and gives each of them to one death.

    Args:
        path: the file with the counter, `oom_kill N` in one of its lines; None: there is none.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._told = self._read()

    @classmethod
    def of_this_process(cls) -> OomKills:
        """Those of the memory cgroup that this process is in, and of those below it."""
        return cls(_counter_file())

    def take(self) -> bool:
        """Whether somebody was killed that nobody has been told of; the caller is told of one."""
        if self._read() <= self._told:
            return False
        self._told += 1
        return True

    def _read(self) -> int:
        if self._path is not None:
            try:
                with open(self._path, encoding="ascii") as file:
                    for line in file:
                        name, _, value = line.partition(" ")
                        if name == "oom_kill":
                            return int(value)
            except (OSError, ValueError):
                pass  # it is gone, or of another kernel: nothing is known
        return 0


def _counter_file() -> str | None:
    """`memory.events` of cgroup v2, or `memory.oom_control` of v1."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
    for number, controllers, path in lines:
        if "memory" in controllers.split(","):
            candidates = [f"{_ROOT}/memory{path}/memory.oom_control", f"{_ROOT}/memory/memory.oom_control"]
        elif number == "0":
            candidates = [f"{_ROOT}{path}/memory.events", f"{_ROOT}/unified{path}/memory.events"]
        else:
            continue
        for candidate in candidates:
            if os.path.exists(candidate):
                return candidate
    return None
