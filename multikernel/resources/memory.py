"""How much memory there is to give away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from multikernel.errors import Unsupported


def available(root: str | Path = "/") -> int:
    """Bytes that this process and its children can take without swapping: an estimate, which changes at once.

    The kernel's own (MemAvailable), or what the memory limits of this process's cgroups (v2) leave, if that is less.

    Args:
        root: where the `proc` and `sys` to read are.

    Raises:
        Unsupported: there is no /proc/meminfo.
    """
    root = Path(root)
    try:
        meminfo = (root / "proc/meminfo").read_text()
    except OSError as error:
        raise Unsupported(f"cannot tell how much memory there is: {error}. Is /proc mounted?") from error
    match = re.search(r"^MemAvailable:\s+([0-9]+) kB$", meminfo, re.MULTILINE)
    if match is None:
        raise Unsupported("cannot tell how much memory there is: /proc/meminfo has no MemAvailable (Linux 3.14)")
    return min([int(match[1]) * 1024, *_left_by_cgroups(root)])


def _left_by_cgroups(root: Path) -> Iterator[int]:
    """What each cgroup from this process's own up to the topmost has left, where it has a limit."""
    try:
        membership = (root / "proc/self/cgroup").read_text()
    except OSError:
        return
    match = re.search(r"^0::(/.*)$", membership, re.MULTILINE)  # the line of version 2
    if match is None:
        return
    own = PurePosixPath(match[1].lstrip("/"))
    for group in (own, *own.parents):
        directory = root / "sys/fs/cgroup" / group
        try:
            limit = int((directory / "memory.max").read_text())
            used = int((directory / "memory.current").read_text())
            statistics = (directory / "memory.stat").read_text()
        except (OSError, ValueError):  # no such file in the root group; "max" is no limit
            continue
        # The page cache that nobody has used of late counts as used, and goes when it is wanted.
        cache = re.search(r"^inactive_file ([0-9]+)$", statistics, re.MULTILINE)
        yield max(0, limit - used + (int(cache[1]) if cache else 0))
