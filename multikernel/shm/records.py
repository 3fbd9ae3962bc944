"""What the watchers' pages say, as frozen dataclasses. Times are CLOCK_MONOTONIC nanoseconds unless said; 0: never."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STATES = ("empty", "ready", "loaded", "active", "failed", "standby")
"""States of an instance, by the multikernel tree's numbers (and standby)."""

RESTARTS = ("never", "on-failure", "always")
"""When an instance is booted again, by the numbers of enum mk_restart."""

ON_HANG = ("report", "dump", "reboot")
"""What happens to one that hangs, by the numbers of enum mk_on_hang."""

PHASES = ("spawned", "pinned", "mapped", "imported", "active", "ready", "ending")
"""How far an incarnation has come, in order."""


_HEAD = "Traceback (most recent call last):"
_IN_GROUP = "  | "  # before each line of an ExceptionGroup
_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
"""What stands between two tracebacks, of which the last one counts (traceback.py)."""


@dataclass(frozen=True)
class End:
    """How an incarnation of an instance ended.

    reason: "halted", "returned", "killed", "exit", "exception", "signal", "boot", "memory" (it had no more, as far as
        that can be known: a MemoryError, or a kill that the memory cgroup has counted), "watchdog" (it was hung, and
        was killed for it) or "unknown" (nobody saw it: host and zygote were killed, too)
    code: what `main` returned, or the exit status; 0 when it ended by a signal
    signal: the number of the signal that ended it; 0: none
    traceback: the last part of the Python traceback; "": none
    forced: whether a halt had to kill it
    """

    reason: str
    code: int = 0
    signal: int = 0
    traceback: str = ""
    forced: bool = False

    @property
    def error(self) -> str:
        """The line of the traceback that says what was raised; its message may go on, and notes may follow. "": none.

        Where the traceback is none, or its beginning was cut off, that is its last line.
        """
        lines = self.traceback.strip("\n").split("\n")
        heads = [number for number, text in enumerate(lines) if text in _CHAINED]
        rest = lines[heads[-1] + 1 :] if heads else lines
        begun = next((number for number, text in enumerate(rest) if text.endswith(_HEAD)), None)
        if begun is None:
            return lines[-1].strip()
        below = (text.removeprefix(_IN_GROUP) for text in rest[begun + 1 :])
        return next((text for text in below if text[:1].strip()), lines[-1]).strip()


@dataclass(frozen=True)
class Counters:
    """What went through one end, one link, or all of an instance: counts only grow. *_bytes: of payload."""

    sent: int = 0
    sent_bytes: int = 0
    received: int = 0
    received_bytes: int = 0
    ipis_sent: int = 0
    ipis_received: int = 0
    spins: int = 0
    parks: int = 0
    wakes: int = 0
    spurious: int = 0
    stalls: int = 0

    @classmethod
    def of(cls, copy: Any) -> Counters:
        """From a struct mk_counters_copy."""
        return cls(*(getattr(copy, name) for name in cls.__dataclass_fields__))

    def __add__(self, other: Counters) -> Counters:
        return Counters(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class LinkStatus:
    """One link of an instance. peer: id of the other party; capacity: bytes each way."""

    peer: int
    capacity: int
    counters: Counters


@dataclass(frozen=True)
class Status:
    """What an instance says of itself. Each figure is right, but they are not of one instant.

    awake: its event loop runs. The lanes of one that has such a loop say all the time that it is parked.
    """

    id: int
    pid: int
    epoch: int
    phase: str
    cpu: int
    awake: bool
    heartbeat_ns: int
    phase_times_ns: dict[str, int]
    counters: Counters
    ipi: tuple[int, ...]
    links: tuple[LinkStatus, ...]


@dataclass(frozen=True)
class Supervised:
    """How the host looks after an instance, as part of its record. Times of 0: there is none.

    restarts: in a row, by its policy, and restart_limit the most of them; restart_at_ns: when the next is due;
    watchdog_ns: how long it may show no sign of life, 0: nobody looks; hung_since_ns: its last one, once it is hung;
    panic: epoch of the incarnation whose panic report is kept, 0: none; claimed_ns: when its newest boot began;
    crash_image: id of its crash image, 0: none; core: whether it stays dumpable; crashed: whether what runs is its
    crash image
    """

    restart: str = "never"
    restarts: int = 0
    restart_limit: int = 0
    restart_at_ns: int = 0
    watchdog_ns: int = 0
    on_hang: str = "report"
    hung_since_ns: int = 0
    panic: int = 0
    claimed_ns: int = 0
    crash_image: int = 0
    core: bool = False
    crashed: bool = False


@dataclass(frozen=True)
class InstanceRecord:
    """What the host says of an instance.

    memory: its budget, bytes; initrd: what of that its initrd takes; memories, named: how many named memories it has,
    and their bytes; image: id of its image, 0: none; due: whether a successor of its last incarnation is to boot; torn:
    the host was in the middle of a change (or died there), so this is the value before it
    """

    id: int
    name: str
    state: str = "empty"
    pid: int = 0
    epoch: int = 0
    state_time_ns: int = 0
    memory: int = 0
    due: bool = False
    memories: int = 0
    named: int = 0
    image: int = 0
    exclusive: bool = True
    cpus: tuple[int, ...] = ()
    end: End | None = None
    cmdline: str = ""
    console_tail: str = ""
    supervised: Supervised = Supervised()
    torn: bool = False
    initrd: int = 0


@dataclass(frozen=True)
class ImageRecord:
    """What the host says of an image.

    users: instances that have it loaded; digest: SHA-256, hex; size: bytes; signature: id of the key by which it is
    signed, "unsigned", or "unchecked" where the machine checks none; imports: what it takes from the environment,
    "NAME VERSION" each, and "..." if there is more; torn: as of `InstanceRecord`
    """

    id: int
    kind: str
    name: str
    size: int
    digest: str
    users: int = 0
    torn: bool = False
    signature: str = "unsigned"
    imports: tuple[str, ...] = ()


@dataclass(frozen=True)
class MachineRecord:
    """What the host says of the machine.

    wall_time_ns: CLOCK_REALTIME at boot; memory: of the pool, bytes; trusted: keys of which one must have signed an
    image, 0: any is loaded; torn: as of `InstanceRecord`
    """

    name: str
    host_pid: int
    persistent: bool = False
    clients: int = 0
    boot_time_ns: int = 0
    wall_time_ns: int = 0
    memory: int = 0
    memory_used: int = 0
    cpus: tuple[int, ...] = ()
    torn: bool = False
    trusted: int = 0
