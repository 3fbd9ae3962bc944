"""Kills the processes of a machine that are none of its instances."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from tests.eventually import PATIENCE

if TYPE_CHECKING:
    import multikernel as mk


def zygote(machine: mk.Machine) -> int:
    """Its pid; of the next one, if one has just ended."""
    deadline = time.monotonic() + PATIENCE
    while not (pid := machine._membership.request("census", {})["zygote"]):
        assert time.monotonic() < deadline
    return pid


def kill(*pids: int) -> None:
    """Kill them, all before any has ended, and return when all have."""
    pidfds = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has ended just now, by an earlier kill
            pidfds.append(os.pidfd_open(pid))
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pidfd in pidfds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], PATIENCE)[0]
        os.close(pidfd)


def is_told(which: str) -> bool:
    """Whether the next host is sure to know how an instance ends later.

    Without its zygote it is init's child. Newer systems do not let an ordinary user see how until init has taken it,
    and some take their time: the end is unknown then.
    """
    return which != "both" or os.geteuid() == 0


def victims(machine: mk.Machine, which: str) -> list[int]:
    other, host = zygote(machine), machine.pid  # in this order: who asks joins the host that there is
    return {"host": [host], "zygote": [other], "both": [host, other]}[which]
