"""Machines, instances and how they ended, as plain data with stable keys: what `--json` prints of them.

Made from the host's page, which every client has mapped: the host is not asked, and may be stopped.
"""

from __future__ import annotations

import os
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multikernel.machine import Instance, Machine
    from multikernel.shm.records import End, ImageRecord, InstanceRecord, MachineRecord


def machine(it: Machine) -> dict[str, Any]:
    """The machine's name, its host, and its pool.

    Memory is in bytes; cpus_free are those that no instance holds; trusted_keys: how many keys there are of which one
    must have signed an image, 0: any image is loaded.
    """
    view = it.view
    record = view.machine()
    held = {cpu for each in view.instances() for cpu in each.cpus}
    return {"machine": record.name, "trusted_keys": record.trusted, **_host(record), "pool": _pool(record, held)}


def _host(record: MachineRecord) -> dict[str, Any]:
    return {"host": {"pid": record.host_pid, "persistent": record.persistent, "clients": record.clients}}


def _pool(record: MachineRecord, held: set[int]) -> dict[str, Any]:
    return {
        "cpus": list(record.cpus),
        "cpus_free": [cpu for cpu in record.cpus if cpu not in held],
        "memory": record.memory,
        "memory_free": record.memory - record.memory_used,
    }


def instances(it: Machine) -> list[dict[str, Any]]:
    """All instances, by id."""
    images = it.view.images()
    return [_instance(record, images) for record in it.view.instances()]


def instance(it: Instance) -> dict[str, Any]:
    """memory: bytes; pid: 0 when it does not run; image: None if none is loaded; last_end: None if it never ran."""
    view = it.machine.view
    record = view.instance(it.id)
    if record is None:  # deleted meanwhile, by another client
        from multikernel.errors import NotFound

        raise NotFound(f"instance {it.name!r} is gone", name=it.name)
    return _instance(record, view.images())


def _instance(record: InstanceRecord, images: list[ImageRecord]) -> dict[str, Any]:
    image = next((each for each in images if each.id == record.image), None)
    return {
        "name": record.name,
        "id": record.id,
        "state": record.state,
        "pid": record.pid,
        "epoch": record.epoch,
        "cpus": list(record.cpus),
        "exclusive": record.exclusive,
        "memory": record.memory,
        "image": None
        if image is None
        else {
            "name": image.name,
            "kind": image.kind,
            "size": image.size,
            "digest": image.digest,
            "signature": image.signature,
        },
        "cmdline": record.cmdline,
        "restart": record.supervised.restart,
        "restarts": record.supervised.restarts,
        "last_end": end(record.end),
    }


def end(it: End | None) -> dict[str, Any] | None:
    """How an incarnation ended; None if none has."""
    return None if it is None else asdict(it)


def outcome(it: Instance, **more: Any) -> dict[str, Any]:
    """What a command that does something to an instance prints: the instance as it is now, and `more`."""
    return {"machine": it.machine.name, "instance": instance(it), **more}


def shared_cpus(it: Machine) -> list[str]:
    """A line for each cpu of instances that the host may run on, too: there are no others left for it."""
    record = it.view.machine()
    try:
        host = os.sched_getaffinity(record.host_pid)
    except OSError:  # it has gone
        return []
    lines = []
    for cpu in sorted(host):
        names = [repr(each.name) for each in it.view.instances() if cpu in each.cpus]
        if names:
            several = f" and {len(names) - 1} more have" if len(names) > 1 else " has"
            lines.append(f"the host may run on cpu {cpu}, which {names[0]}{several}")
    return lines


def end_text(it: End) -> str:
    """How an incarnation ended, for people: "returned, status 0", "signal, SIGSEGV"."""
    how = _signal_name(it.signal) if it.signal else f"status {it.code}"
    return f"{it.reason}, {how}{', forced' if it.forced else ''}"


def now(it: Instance) -> str:
    """What has become of an instance that was just booted, for people: "pid 4711", or how it has ended already."""
    pid, last = it.pid, it.last_end
    if pid or last is None:
        return f"pid {pid}"
    return f"and it has ended by now: {end_text(last)}"


def exit_status(it: End) -> int:
    """What a command passes on for it: the instance's own exit status, or 128 and the signal that ended it."""
    return 128 + it.signal if it.signal else it.code


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
