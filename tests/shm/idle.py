"""Whether a process does nothing at all."""

from __future__ import annotations

import os
import select
from pathlib import Path

from tests.eventually import until

from .children import state

LONG = float(os.environ.get("MK_STRESS", "0")) > 0
SECONDS = 10.0 if LONG else 0.3
"""How long it is looked at. MK_STRESS=1 in the environment: as long as the goal says."""


def activity(pid: int) -> dict[str, tuple[str, ...]]:
    """Of each thread: context switches of both kinds, and the nanoseconds that it has had a cpu."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        switches = [line for line in (task / "status").read_text().splitlines() if "ctxt_switches" in line]
        found[task.name] = (*switches, f"cpu {(task / 'schedstat').read_text().split()[0]} ns")
    return found


def wait_until_idle(pid: int) -> dict[str, tuple[str, ...]]:
    """Until it has gone to sleep for long; what it had done by then."""
    last: dict[str, tuple[str, ...]] = {}

    def settled() -> bool:
        """The same for longer than the bounded first sleep (10 ms) lasts, and not for want of a cpu."""
        nonlocal last
        last = activity(pid)
        return not_ended(pid, 0.05) and activity(pid) == last and all(state(pid, int(task)) == "S" for task in last)

    until(settled)
    return last


def check_idle(pid: int, seconds: float = SECONDS) -> None:
    """Once it has gone to sleep for long it stays so: no context switch, no cpu time."""
    before = wait_until_idle(pid)
    assert not_ended(pid, seconds)
    assert activity(pid) == before


def not_ended(pid: int, seconds: float) -> bool:
    """Wait for its end, which should not come."""
    pidfd = os.pidfd_open(pid)
    try:
        return not select.select([pidfd], [], [], seconds)[0]
    finally:
        os.close(pidfd)
