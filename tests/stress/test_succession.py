"""Two instances in a chain, a program before them: killed and rebooted at random moments, with a stream through both.

Some seconds here; MULTIKERNEL_STRESS=10 makes it 200 ends. MULTIKERNEL_SEED chooses other moments.
"""

from __future__ import annotations

import contextlib
import os
import random

import pytest

import multikernel as mk
from tests.succession import Stream, crash, in_thread, make

FACTOR = int(os.environ.get("MULTIKERNEL_STRESS", "1"))
SEED = int(os.environ.get("MULTIKERNEL_SEED", "20260101"))
RESTART = mk.Restart("always", limit=1000, delay=0.0)

pytestmark = [pytest.mark.stress, pytest.mark.slow, pytest.mark.timeout(120 + 30 * FACTOR)]


def test_a_stream_through_two_instances_is_exact_whatever_ends_of_them() -> None:
    rng = random.Random(SEED)
    with mk.Machine(memory="256M") as machine:
        make(machine, "b", restart=RESTART)
        make(machine, "a", "b", restart=RESTART)
        with machine.connect("a", capacity="64K") as link:
            stream = Stream(link)
            for _ in range(20 * FACTOR):
                until = stream.due + rng.randrange(400)
                while stream.due < until:
                    stream.step()
                name = rng.choice(("a", "b"))
                if rng.randrange(3):
                    crash(machine[name])
                    continue
                rebooting = in_thread(lambda name=name: reboot(machine[name]))
                while rebooting.is_alive():
                    stream.step()
            stream.finish()
        assert all(machine[name].epoch > 1 for name in "ab"), f"seed {SEED}"


def reboot(instance: mk.Instance) -> None:
    with contextlib.suppress(mk.StateError, mk.BootError):  # it was killed just now, or in the middle of its boot
        instance.reboot(timeout=20)
