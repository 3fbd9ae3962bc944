"""How long a call may wait, and how a waiting end spends the time."""

from __future__ import annotations

import itertools
import time
from typing import Literal, TypeAlias

from multikernel._core import lib

WaitPolicy: TypeAlias = Literal["adaptive", "spin", "park"]
"""`adaptive` spins as long as that pays and then sleeps, `spin` never sleeps, `park` sleeps at once."""

_never = itertools.count(-1, -1)
"""The deadlines of calls without a time-out: each has another one, by which the core tells a call from the next."""

AT_ONCE = 0
"""The deadline of a call that must not wait."""


FOR_EVER = 1e9
"""Seconds that nobody waits for: three decades. A time-out of more, inf too, is none."""


def deadline(timeout: float | None) -> int:
    """When a call with this `timeout` gives up: CLOCK_MONOTONIC, ns; negative: never.

    Args:
        timeout: seconds; None: no limit; 0 or less: do not wait.

    Raises:
        ValueError: it is not a number (NaN).
    """
    if timeout is None or timeout > FOR_EVER:
        return next(_never)
    if timeout > 0:
        return time.monotonic_ns() + round(timeout * 1_000_000_000)
    if timeout <= 0:
        return AT_ONCE
    raise ValueError(f"a timeout is None or a number of seconds, not {timeout!r}")


def is_over(until: int) -> bool:
    """Whether a deadline has come."""
    return until == AT_ONCE or 0 < until <= time.monotonic_ns()


def policy_number(policy: WaitPolicy) -> int:
    """The core's number for a policy; ValueError names those that there are."""
    numbers = {"adaptive": lib.MK_WAIT_ADAPTIVE, "spin": lib.MK_WAIT_SPIN, "park": lib.MK_WAIT_PARK}
    if policy not in numbers:
        raise ValueError(f"wait={policy!r}: there are {', '.join(map(repr, numbers))}")
    number: int = numbers[policy]
    return number
