"""A whole process group is killed at once: the program that made a machine, and all that it has started itself."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
from pathlib import Path

import multikernel as mk
from tests.eventually import PATIENCE

FACTOR = int(os.environ.get("MULTIKERNEL_STRESS", "1"))
SEED = int(os.environ.get("MULTIKERNEL_SEED", "20260101"))
ECHO = str(Path(__file__).parent.parent / "images" / "echo.py")

PROGRAM = """
import os, signal, subprocess, sys
import multikernel as mk
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
with mk.Machine(memory="64M", name="killed") as machine:
    web = machine.create("web", memory="16M")
    web.load(sys.argv[1])
    web.boot(until="ready")
    print(machine.pid, web.pid, flush=True)
    while True:
        with machine.connect("web") as link:
            link.request(b"hello")
"""


def start() -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, ECHO]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )


def end_of(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], PATIENCE)[0])


def test_group_of_the_program_that_is_killed_takes_the_machine_with_it():
    """Host, zygote and instances lead sessions of their own, so they are not killed with it; they see its end."""
    with start() as program:
        pidfds = [os.pidfd_open(int(pid)) for pid in program.stdout.readline().split()]
        os.killpg(program.pid, signal.SIGKILL)
        ended = [end_of(pidfd) for pidfd in pidfds]
        for pidfd in pidfds:
            os.close(pidfd)
    assert ended == [True, True]
    while mk.machines():  # which removes what is dead, and waits for what is about to end
        pass


def test_group_that_is_killed_at_any_moment_leaves_nothing():
    """While the interpreter starts, the host, the zygote, the instance; or later. Each test sees what is left."""
    rng = random.Random(SEED)
    for _ in range(6 * FACTOR):
        with start() as program:
            select.select([program.stdout], [], [], rng.uniform(0.05, 0.6))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
