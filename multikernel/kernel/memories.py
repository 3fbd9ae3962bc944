"""Named memory, seen from the instance that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multikernel.errors import ResourceError
from multikernel.shm import named
from multikernel.shm.channel import expect
from multikernel.units import format_size

if TYPE_CHECKING:
    from .hostside import HostSide

_WITHIN = 30.0  # seconds for the host to make it; zeroing takes half a second a gigabyte


class Memories:
    """Those that were asked for, by name.

    Args:
        host: who makes and keeps them.
    """

    def __init__(self, host: HostSide) -> None:
        self._host = host
        self._mapped: dict[str, memoryview] = {}

    def get(self, name: str, size: int) -> memoryview:
        """See `Kernel.memory`."""
        rounded = named.rounded(size)
        there = self._mapped.get(name)
        if there is None:
            answer, fds = self._host.ask({"verb": "memory", "name": name, "size": size}, [], _WITHIN)
            (fd,) = expect(fds, 1, "named memory")
            self._host.keep_memory(name, fd)
            self._mapped[name] = there = named.mapped(fd, answer["size"])
        elif len(there) != rounded:
            raise ResourceError(
                f"the memory {name!r} has {format_size(len(there))}, not {format_size(rounded)}. Ask for that size, or "
                "take another name.",
                name=name,
                asked=size,
                size=len(there),
            )
        return there
