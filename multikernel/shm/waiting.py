"""How long a call may wait, and how a waiting end spends the time."""

from __future__ import annotations

import time
from typing import Literal, TypeAlias

from multikernel._core import lib

WaitPolicy: TypeAlias = Literal["adaptive", "spin", "park"]
"""`adaptive` spins as long as that pays and then sleeps, `spin` never sleeps, `park` sleeps at once."""

NEVER = -1
"""The deadline of a call without a time-out."""

AT_ONCE = 0
"""The deadline of a call that must not wait."""


def deadline(timeout: float | None) -> int:
    """When a call with this `timeout` (seconds, None: no limit, 0 or less: do not wait) gives up: CLOCK_MONOTONIC, ns."""
    if timeout is None:
        return NEVER
    if timeout <= 0:
        return AT_ONCE
    return time.monotonic_ns() + round(timeout * 1_000_000_000)


def policy_number(policy: WaitPolicy) -> int:
    """The core's number for a policy; ValueError names those that there are."""
    numbers = {"adaptive": lib.MK_WAIT_ADAPTIVE, "spin": lib.MK_WAIT_SPIN, "park": lib.MK_WAIT_PARK}
    if policy not in numbers:
        raise ValueError(f"wait={policy!r}: there are {', '.join(map(repr, numbers))}")
    number: int = numbers[policy]
    return number
