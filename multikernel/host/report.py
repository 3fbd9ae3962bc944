"""Makes the panic report of an incarnation that has ended."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from typing import TYPE_CHECKING

from multikernel.errors import MultikernelError
from multikernel.host import core_file
from multikernel.image import sealed
from multikernel.kernel.panic import Panic, signal_name
from multikernel.shm.lane_look import NUMBER, Unread
from multikernel.shm.pages import StatusView
from multikernel.shm.records import Counters

if TYPE_CHECKING:
    from multikernel.host.incarnation import Incarnation
    from multikernel.host.instance import Instance
    from multikernel.shm.pages import End, Status

_CONSOLE = 16_000  # characters
_MOST_MESSAGES = 256


def make(instance: Instance, run: Incarnation, end: End, *, dumped: bool) -> Panic:
    """What is known of `run`, which ended as `end` says.

    Args:
        instance: whose incarnation it was.
        run: with its pages and its lanes still open.
        end: how it ended.
        dumped: whether the system says that it has written a core file.
    """
    status = _status(run)
    loaded = instance.loaded
    core, path = _core(instance, run, end, dumped=dumped)
    return Panic(
        name=instance.name,
        id=instance.id,
        epoch=run.epoch,
        pid=run.pid,
        reason=end.reason,
        cause=_cause(run, end),
        code=end.code,
        signal=end.signal,
        time=time.time(),
        ran=(time.monotonic_ns() - instance.claimed_ns) / 1e9,
        phase=status.phase if status else "",
        cpus=instance.cpus,
        image=loaded.image.name if loaded else "",
        digest=loaded.image.digest if loaded else "",
        cmdline=loaded.cmdline if loaded else "",
        traceback=end.traceback,
        threads=run.threads,
        console=run.printed(_CONSOLE),
        messages=tuple(run.inbound.unread()[:_MOST_MESSAGES]),
        set_aside=(),
        counters=status.counters if status else Counters(),
        core=core,
        core_file=path,
    )


def seal(panic: Panic) -> int:
    """A descriptor of it that nobody can change any more. OSError: there is no memory for it."""
    return sealed.seal(panic.write(), f"panic:{panic.name}:{panic.epoch}")


def with_set_aside(panic: Panic, sender: int, header: object) -> Panic:
    """The report, with one more message that was set aside after it.

    Raises:
        ValueError: this is no header.
    """
    names = ("type", "subtype", "id", "length")
    if not (isinstance(header, dict) and all(isinstance(header.get(name), int) for name in names)):
        raise ValueError(f"{str(header)[:100]!r} is no header of a message")
    unread = Unread(sender, header["type"], header["subtype"], header["id"] & NUMBER, header["length"])
    return dataclasses.replace(panic, set_aside=(*panic.set_aside, unread))


def _status(run: Incarnation) -> Status | None:
    if run.pages:
        with contextlib.suppress(MultikernelError, OSError):
            view = StatusView(run.pages[0])
            try:
                return view.read()
            finally:
                view.close()
    return None


def _cause(run: Incarnation, end: End) -> str:
    last = end.error
    match end.reason:
        case "watchdog":
            return f"watchdog: no sign of life for {run.hung_for:.1f} s"
        case "memory":
            how = "the system has killed it, by its memory cgroup's oom_kill counter" if end.signal else last
            return f"out of memory: {how}"
        case "signal":
            return f"signal {end.signal} ({signal_name(end.signal)})"
        case "boot":
            return f"its boot failed: {last or 'it took too long'}"
        case "exception":
            return last
        case "unknown":
            return "unknown: its host and the zygote were killed, too, and nobody was told"
        case "returned":
            return f"main returned {end.code}"
    return f"it exited with status {end.code}"


def _core(instance: Instance, run: Incarnation, end: End, *, dumped: bool) -> tuple[str, str]:
    if not instance.policy.core:
        return "none: it was created without core=True", ""
    if not end.signal:
        return "none: it was not a signal that ended it", ""
    if not dumped:
        return f"none: the system writes none for {signal_name(end.signal)}, or not here (ulimit -c, core_pattern)", ""
    return core_file.find(run.pid, end.signal, instance.loaded.directory if instance.loaded else os.getcwd())
