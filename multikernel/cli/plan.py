"""What a command would do, worked out without doing it: for `--dry-run`, and where a number of cpus was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multikernel.machine import Machine


def cpus(
    machine: Machine,
    name: str,
    asked: tuple[int, ...] | None,
    count: int,
    memory: int,
    *,
    exclusive: bool,
    number: int | None,
) -> tuple[int, ...]:
    """The cpus that an instance would get now; `count` of those that are free if none are `asked` for.

    Raises:
        ResourceError: it would be refused.
    """
    from multikernel.errors import ResourceError
    from multikernel.host.registry import FIXED_MEMORY
    from multikernel.resources.pool import Pool
    from multikernel.units import format_size

    if memory < FIXED_MEMORY:
        raise ResourceError(
            f"{format_size(memory)} for {name!r} is too little: it takes {format_size(FIXED_MEMORY)} at least.",
            asked=memory,
            least=FIXED_MEMORY,
        )
    record, others = machine.view.machine(), machine.view.instances()
    pool = Pool(record.cpus, record.memory)
    for each in others:
        pool.reserve(each.name, each.cpus, each.memory, exclusive=each.exclusive)
        if each.id == number:
            raise ResourceError(
                f"the id {number} is taken, by {each.name!r}. Take another, or leave it out.", id=number
            )
    chosen = pool.choose(count, exclusive=exclusive) if asked is None else asked
    pool.reserve(name, chosen, memory, exclusive=exclusive)
    return chosen


def machine(name: str, cpus: tuple[int, ...] | None, memory: int | None, *, trusted: int) -> dict[str, Any]:
    """A machine that would be, as `describe.machine` has one that is.

    Raises:
        ResourceError: the name is taken, or this process may not use the cpus.
    """
    from multikernel.errors import ResourceError
    from multikernel.host.rundir import is_running
    from multikernel.resources import memory as free_memory
    from multikernel.resources import topology

    if is_running(name):
        raise ResourceError(f"a machine named {name!r} is running already. Take another name.", name=name)
    chosen = topology.allowed() if cpus is None else topology.check_usable(cpus)
    size = free_memory.available() if memory is None else memory
    return {
        "machine": name,
        "trusted_keys": trusted,
        "host": {"pid": 0, "persistent": True, "clients": 0},
        "pool": {"cpus": list(chosen), "cpus_free": list(chosen), "memory": size, "memory_free": size},
    }


def cpus_of_host(asked: tuple[int, ...] | None) -> tuple[int, ...]:
    """The cpus that the only instance of a machine of its own would get.

    Raises:
        ResourceError: this process may not use them.
    """
    from multikernel.resources import topology

    return topology.allowed()[:1] if asked is None else topology.check_usable(asked)


def document(
    machine: str | None, name: str, cpus: tuple[int, ...], memory: int, *, exclusive: bool, number: int | None
) -> dict[str, Any]:
    """An instance that would be, as `describe.outcome` has one that is. None: the machine or the id is not made yet."""
    return {
        "machine": machine,
        "instance": {
            "name": name,
            "id": number,
            "state": "empty",
            "pid": 0,
            "epoch": 0,
            "cpus": list(cpus),
            "exclusive": exclusive,
            "memory": memory,
            "image": None,
            "cmdline": "",
            "last_end": None,
        },
        "dry_run": True,
    }
