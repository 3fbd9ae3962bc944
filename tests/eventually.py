"""Waiting for what other processes do."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds: the ceiling against hanging of everything that a test waits for, which takes some milliseconds, or an
interpreter's start or two, when nothing else wants the cpus. Nothing is decided by it."""


def until(holds: Callable[[], object], patience: float = PATIENCE) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, "it did not come to be"
        select.select([], [], [], 0.001)
