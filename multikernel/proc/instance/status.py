"""`instances/NAME/status`: all about an instance, what the host says of it and what it says of itself."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from multikernel.proc.words import kib, line, pairs, seconds
from multikernel.shm.pages import PHASES, Counters, End, Supervised
from multikernel.units import format_cpus

if TYPE_CHECKING:
    from multikernel.proc.reader import Seen

_NO_CPU = 0xFFFFFFFF  # what a page says that does not know where its owner runs


def values(seen: Seen) -> dict[str, Any]:
    """Times in nanoseconds, memory in bytes. What an instance says of itself is None if no page of its has come.

    misplaced: whether it ran on a cpu that is not its own, when its heart last beat: somebody has moved it, or taken
    the cpu away; page_epoch: the incarnation that these figures are of; since_ns: how long it has been in its state;
    phases_ns: when each was reached, after the first; restarts: in a row; restart_in_ns: until the one that is due;
    hung_ns: since its last sign of life, once that is too long ago; core: whether it stays dumpable,
    and so open to others of its user.
    """
    record = seen.record
    its: dict[str, Any] = {
        "name": record.name,
        "id": record.id,
        "state": record.state,
        "since_ns": max(0, seen.now_ns - record.state_time_ns),
        "pid": record.pid,
        "epoch": record.epoch,
        "cpus": list(record.cpus),
        "exclusive": record.exclusive,
        "memory": record.memory,
        "image": seen.image.name if seen.image else None,
        "last_end": vars(record.end) if record.end else None,
        "torn": record.torn,
    }
    its |= {
        "crash_image": seen.crash_image.name if seen.crash_image else None,
        "crashed": record.supervised.crashed,
    }
    return its | _supervised(record.supervised, seen.now_ns) | _own(seen)


def _supervised(it: Supervised, now_ns: int) -> dict[str, Any]:
    return {
        "restart": it.restart,
        "restarts": it.restarts,
        "restart_limit": it.restart_limit,
        "restart_in_ns": max(0, it.restart_at_ns - now_ns) if it.restart_at_ns else None,
        "watchdog_ns": it.watchdog_ns or None,
        "on_hang": it.on_hang,
        "hung_ns": max(0, now_ns - it.hung_since_ns) if it.hung_since_ns else None,
        "core": it.core,
    }


def _own(seen: Seen) -> dict[str, Any]:
    status = seen.status
    if status is None:
        return dict.fromkeys(
            ("page_epoch", "phase", "cpu", "misplaced", "heartbeat_age_ns", "phases_ns", "links", "counters")
        )
    times = status.phase_times_ns
    first = min(times.values(), default=0)
    cpu = status.cpu if status.heartbeat_ns and status.cpu != _NO_CPU else None
    return {
        "page_epoch": seen.epoch,
        "phase": status.phase,
        "cpu": cpu,
        "misplaced": cpu is not None and bool(seen.record.pid) and cpu not in seen.record.cpus,
        "heartbeat_age_ns": max(0, seen.now_ns - status.heartbeat_ns) if status.heartbeat_ns else None,
        "phases_ns": {phase: time - first for phase, time in times.items()},
        "links": len(status.links),
        "counters": vars(status.counters),
    }


def text(seen: Seen) -> str:
    """Lines as those of /proc/PID/status: always the same, in this order; `Torn` only when it is."""
    its = values(seen)
    age, phases, counters = its["heartbeat_age_ns"], its["phases_ns"] or {}, its["counters"] or {}
    lines: list[tuple[str, object]] = [
        ("Name", line(its["name"])),
        ("Id", its["id"]),
        ("State", its["state"]),
        ("Since", seconds(its["since_ns"])),
        ("Pid", its["pid"]),
        ("Epoch", its["epoch"]),
        ("Cpus", format_cpus(its["cpus"])),
        ("Exclusive", its["exclusive"]),
        ("Memory", kib(its["memory"])),
        ("Image", None if its["image"] is None else line(its["image"])),
        ("CrashImage", None if its["crash_image"] is None else line(its["crash_image"])),
        ("Crashed", its["crashed"]),
        ("PageEpoch", its["page_epoch"]),
        ("Phase", its["phase"]),
        ("Cpu", its["cpu"]),
        ("Misplaced", its["misplaced"]),
        ("HeartbeatAge", _seconds(age)),
        ("Links", its["links"]),
    ]
    lines += [(_title(name), counters.get(name)) for name in Counters.__dataclass_fields__]
    lines += [(f"Phase{phase.title()}", _milliseconds(phases.get(phase))) for phase in PHASES]
    lines += [
        ("Restart", its["restart"]),
        ("Restarts", its["restarts"]),
        ("RestartLimit", its["restart_limit"]),
        ("RestartIn", _seconds(its["restart_in_ns"])),
        ("Watchdog", _seconds(its["watchdog_ns"])),
        ("OnHang", its["on_hang"]),
        ("Hung", _seconds(its["hung_ns"])),
        ("Protection", "core: open to this user's debuggers" if its["core"] else "closed to others of this user"),
    ]
    lines += _last_end(seen.record.end)
    if its["torn"]:
        lines.append(("Torn", True))
    return pairs(lines)


def _title(name: str) -> str:
    return "".join(part.title() for part in name.split("_"))


def _milliseconds(nanoseconds: int | None) -> str | None:
    return None if nanoseconds is None else f"{nanoseconds / 1e6:.3f} ms"


def _seconds(nanoseconds: int | None) -> str | None:
    return None if nanoseconds is None else seconds(nanoseconds)


def _last_end(end: End | None) -> list[tuple[str, object]]:
    if end is None:
        return [(f"LastEnd{part}", None) for part in ("", "Code", "Signal", "Forced", "Error")]
    return [
        ("LastEnd", line(end.reason)),
        ("LastEndCode", end.code),
        ("LastEndSignal", _signal(end.signal)),
        ("LastEndForced", end.forced),
        ("LastEndError", line(end.error) or None),
    ]


def _signal(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})" if number else "0"
    except ValueError:  # a real-time one
        return str(number)
