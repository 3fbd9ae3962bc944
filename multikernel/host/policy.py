"""What becomes of an instance without being asked for: how it is restarted, when it counts as hung, what is kept."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

When = Literal["never", "on-failure", "always"]
OnHang = Literal["report", "dump", "reboot"]

WHEN: tuple[When, ...] = get_args(When)
ON_HANG: tuple[OnHang, ...] = get_args(OnHang)

_MOST_RESTARTS = 1_000_000
_LONGEST = 10.0**6  # seconds


@dataclass(frozen=True, slots=True)
class Restart:
    """When an instance is booted again that ended without being asked to, and after how long a wait.

    The words and the first delay are systemd's (`Restart=`, `RestartSec=`, `StartLimitBurst=`); the wait grows with
    every restart in a row, as its `RestartSteps=` has it. Times are seconds.

    Raises:
        ValueError: a field that cannot be meant.
    """

    when: When = "never"
    """"never"; "on-failure": it died by itself or was killed for being hung; "always": also when `main` returned."""
    delay: float = 0.1
    """Before the first restart. It doubles with each one in a row."""
    longest: float = 30.0
    """What it does not grow beyond."""
    limit: int = 10
    """Restarts in a row after which it stays as it is."""
    good_after: float = 10.0
    """A run of so long was a good one: delay and count begin anew."""

    def __post_init__(self) -> None:
        _check_one_of("restart", self.when, WHEN)
        for name in ("delay", "longest", "good_after"):
            _check_seconds(name, getattr(self, name))
        if self.longest < self.delay:
            raise ValueError(f"the longest delay, {self.longest:g} s, is shorter than the first, {self.delay:g} s")
        if not (_is_integer(self.limit) and 1 <= self.limit <= _MOST_RESTARTS):
            raise ValueError(f"limit is a number of restarts from 1 to {_MOST_RESTARTS}, not {self.limit!r}")

    def wait_before(self, restarts: int) -> float:
        """How long to wait, after so many restarts in a row."""
        return min(self.longest, self.delay * 2.0 ** min(restarts, 64))


@dataclass(frozen=True, slots=True)
class Policy:
    """All of it, of one instance; from its creation to its end.

    Raises:
        ValueError: a field that cannot be meant.
    """

    restart: Restart = field(default_factory=Restart)
    watchdog: float | None = None
    """Seconds without a sign of life after which it is hung; None: nobody looks."""
    on_hang: OnHang = "report"
    core: bool = False
    """Whether it stays dumpable, so that the system can write a core file of it."""

    def __post_init__(self) -> None:
        if self.watchdog is not None:
            _check_seconds("watchdog", self.watchdog)
            if self.watchdog <= 0:
                raise ValueError("a watchdog of 0 seconds would take everything for hung; None switches it off")
        _check_one_of("on_hang", self.on_hang, ON_HANG)

    @classmethod
    def of(cls, restart: str | Restart, watchdog: float | None, on_hang: str, *, core: bool) -> Self:
        """From the arguments of `Machine.create`."""
        rule = restart if isinstance(restart, Restart) else Restart(cast("When", restart))
        return cls(rule, watchdog, cast("OnHang", on_hang), core)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The policy that `to_json` wrote.

        Raises:
            ValueError: a field is missing, unknown, or cannot be meant.
        """
        try:
            return cls(
                Restart(**document["restart"]), document["watchdog"], document["on_hang"], bool(document["core"])
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no policy of an instance: {error}") from None


def _check_one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is one of {', '.join(map(repr, choices))}, not {value!r}")


def _check_seconds(name: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(cast("float", value)) and 0 <= cast("float", value) <= _LONGEST):
        raise ValueError(f"{name} is a number of seconds from 0 to {_LONGEST:g}, not {value!r}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
