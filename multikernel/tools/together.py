"""Boots of several instances at once: the host forks one after the other, and the rest of each overlaps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

from multikernel.errors import MultikernelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multikernel.machine import Instance

_MOST_THREADS = 64  # each only waits for an answer


def boot(
    instances: Sequence[Instance], until: Literal["active", "ready"], timeout: float, *, cold: bool = False
) -> list[MultikernelError | None]:
    """Boot all of them, each with so many seconds, and wait for all; what went wrong with each, None: nothing."""

    def boot_one(instance: Instance) -> MultikernelError | None:
        try:
            instance.boot(until=until, timeout=timeout, cold=cold)
        except MultikernelError as error:
            return error
        return None

    with ThreadPoolExecutor(max(1, min(len(instances), _MOST_THREADS))) as threads:
        return list(threads.map(boot_one, instances))
