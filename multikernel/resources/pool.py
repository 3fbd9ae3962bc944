"""The cpus and the memory that a machine may give to its instances, and who holds what.

Only book-keeping: what is reserved here is pinned, budgeted and measured elsewhere. One owner, the host; no locks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from multikernel.errors import NotFound, ResourceError
from multikernel.units import format_cpus, format_size, parse_cpus


@dataclass(frozen=True)
class _Share:
    cpus: tuple[int, ...]
    memory: int
    exclusive: bool


class Pool:
    """Cpus and bytes, and the shares that names hold of them.

    A cpu belongs to one name, unless all that hold it asked for it with `exclusive=False`. Memory is always divided.
    Every change is checked whole before anything is changed: an error leaves the pool as it was.

    Args:
        cpus: the cpus to give away; at least one.
        memory: the bytes to give away.

    Raises:
        ValueError: there are no cpus, or the memory is negative.
    """

    def __init__(self, cpus: Iterable[int], memory: int) -> None:
        self.cpus = parse_cpus(cpus)
        self.memory = memory
        if not self.cpus:
            raise ValueError("a pool needs a cpu at least")
        if memory < 0:
            raise ValueError(f"a pool's memory cannot be negative: {memory}")
        self._shares: dict[str, _Share] = {}

    def reserve(self, name: str, cpus: Iterable[int], memory: int, *, exclusive: bool = True) -> None:
        """Give `cpus` and `memory` bytes to `name`: all of it, or nothing.

        Raises:
            ResourceError: `name` holds a share already, no cpu was asked for, or some of it is not to be had. Fields
                `asked` and `free` (cpus; free ones are those that this request could get), `conflicts` (pairs of a
                cpu and the names that hold it; none: it is not in the pool), `memory_asked`, `memory_free` (bytes).
            ValueError: the memory is negative, or a number is no cpu's.
        """
        asked = parse_cpus(cpus)
        if memory < 0:
            raise ValueError(f"memory cannot be negative: {memory}")
        if name in self._shares:
            raise ResourceError(f"the name {name!r} is taken. Delete that one, or take another name.", name=name)
        free = self._to_be_had(exclusive=exclusive)
        conflicts = tuple((cpu, self.holders(cpu)) for cpu in asked if cpu not in free)
        if not asked or conflicts or memory > self.free_memory():
            raise ResourceError(
                self._refusal(name, asked, free, conflicts, memory),
                asked=asked,
                free=free,
                conflicts=conflicts,
                memory_asked=memory,
                memory_free=self.free_memory(),
            )
        self._shares[name] = _Share(asked, memory, exclusive)

    def release(self, name: str) -> None:
        """Take back all that `name` holds.

        Raises:
            NotFound: it holds nothing.
        """
        if name not in self._shares:
            raise NotFound(f"{name!r} holds nothing of the pool", name=name)
        del self._shares[name]

    def choose(self, count: int, *, exclusive: bool = True) -> tuple[int, ...]:
        """The `count` cpus that a request that names none should ask for: free ones first, lowest number first.

        With `exclusive=False` those follow that are shared already, the least shared first. Reserves nothing.

        Raises:
            ResourceError: there are not so many; fields `asked` (the number) and `free` (cpus).
            ValueError: `count` is below 1.
        """
        if count < 1:
            raise ValueError(f"an instance needs a cpu at least, not {count}")
        candidates = sorted(self._to_be_had(exclusive=exclusive), key=lambda cpu: len(self.holders(cpu)))
        if len(candidates) < count:
            raise ResourceError(
                f"cannot give {_cpus(count)}: {len(candidates)} of the pool's {len(self.cpus)} "
                f"({format_cpus(self.cpus)}) can be had. Free: {format_cpus(candidates)}. "
                f"{_advice(self._holders_of(self.cpus), ask_for_those=bool(candidates))}",
                asked=count,
                free=tuple(sorted(candidates)),
            )
        return tuple(sorted(candidates[:count]))

    def free_cpus(self) -> tuple[int, ...]:
        """The cpus that nobody holds, ascending."""
        return tuple(cpu for cpu in self.cpus if not self.holders(cpu))

    def free_memory(self) -> int:
        """The bytes that nobody holds."""
        return self.memory - sum(share.memory for share in self._shares.values())

    def holders(self, cpu: int) -> tuple[str, ...]:
        """The names that hold `cpu`, in the order in which they got it."""
        return tuple(name for name, share in self._shares.items() if cpu in share.cpus)

    def _to_be_had(self, *, exclusive: bool) -> tuple[int, ...]:
        """The cpus that a request could get: those that are free and, if it shares, those held only by sharers."""
        if exclusive:
            return self.free_cpus()
        held = {cpu for share in self._shares.values() if share.exclusive for cpu in share.cpus}
        return tuple(cpu for cpu in self.cpus if cpu not in held)

    def _holders_of(self, cpus: Iterable[int]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for cpu in cpus for name in self.holders(cpu)))

    def _refusal(
        self,
        name: str,
        asked: tuple[int, ...],
        free: tuple[int, ...],
        conflicts: tuple[tuple[int, tuple[str, ...]], ...],
        memory: int,
    ) -> str:
        """What was asked, what is there, what to do: for cpus, for memory, or for both."""
        sentences = []
        if not asked:
            sentences.append(f"cannot give no cpus to {name!r}: it needs one at least. Free: {format_cpus(free)}.")
        if conflicts:
            reasons = ", ".join(
                f"cpu {cpu} is held by {_names(holders)}"
                if holders
                else f"cpu {cpu} is not in the pool ({format_cpus(self.cpus)})"
                for cpu, holders in conflicts
            )
            holders = self._holders_of(cpu for cpu, _ in conflicts)
            sentences.append(
                f"cannot give cpus {format_cpus(asked)} to {name!r}: {reasons}. Free: {format_cpus(free)}. "
                f"{_advice(holders, ask_for_those=bool(free))}"
            )
        short = memory - self.free_memory()
        if short > 0:
            sentences.append(
                f"cannot give {format_size(memory)} of memory to {name!r}: {format_size(self.free_memory())} of the "
                f"pool's {format_size(self.memory)} is free, {format_size(short)} too little. "
                "Ask for less, delete another instance, or make the machine with more."
            )
        return " ".join(sentences)


def _advice(holders: tuple[str, ...], *, ask_for_those: bool) -> str:
    """What to do about cpus that `holders` have."""
    ways = ["ask for those"] if ask_for_those else []
    if holders:
        ways.append(f"delete {_names(holders)}")
        ways.append("create all that share a cpu with exclusive=False (--shared)")
    if not ways:
        ways.append("make the machine with more cpus")
    text = ", or ".join(ways)
    return f"{text[0].upper()}{text[1:]}."


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names))


def _cpus(count: int) -> str:
    return "1 cpu" if count == 1 else f"{count} cpus"
