"""How an incarnation ended, and which state that leads to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from multikernel.shm.pages import End

if TYPE_CHECKING:
    from multikernel.host.states import State

Asked = Literal["", "halt", "kill"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the host knows of an end, from whom."""

    code: int
    """Exit status, by the zygote; 0 if a signal killed it."""
    signal: int
    """The signal that killed it, by the zygote; 0: none."""
    asked: Asked = ""
    """What the host was asked to do to it last."""
    forced: bool = False
    """Whether the host killed it because the halt took too long."""
    late: bool = False
    """Whether the host killed it because the boot took too long."""
    booted: bool = True
    """Whether it got as far as its boot was to wait for."""
    hung: bool = False
    """Whether the host killed it because it showed no sign of life."""
    out_of_memory: bool = False
    """Whether the system killed it for want of memory."""
    reason: str = ""
    """Its own word, `ended` of `multikernel.kernel.protocol`; "": it died without one."""
    traceback: str = ""
    unseen: bool = False
    """Whether it ended while nobody looked who could be told of how: `code` and `signal` mean nothing then."""


def judge(facts: Facts) -> tuple[End, State]:
    """The end to keep, and the state after it.

    Killed by the host, or halted, leads to `loaded`, and so does a `main` that returned 0. An instance that died by
    itself has failed: of a signal that the host did not send, of an exception, with another status than 0. So has
    one whose end nobody saw and nobody asked for, and
    one that ended before its boot was done, however it ended, unless it was asked to.
    """
    return End(_reason(facts), facts.code, facts.signal, facts.traceback, facts.forced), _state(facts)


def _state(facts: Facts) -> State:
    if facts.asked == "kill" or facts.forced:
        return "loaded"
    if facts.signal or facts.late or facts.hung or (facts.unseen and not facts.asked):
        return "failed"
    done = facts.asked == "halt" or (facts.booted and facts.code == 0)
    return "loaded" if done else "failed"


def _reason(facts: Facts) -> str:
    if facts.asked == "kill" and (facts.signal or facts.unseen):
        return "killed"
    if facts.forced or (facts.asked == "halt" and not facts.signal and facts.code == 0):  # an unseen end, too
        return "halted"
    if facts.late:
        return "boot"
    if facts.hung:
        return "watchdog"
    if facts.unseen:
        return "unknown"
    if facts.signal:
        return "memory" if facts.out_of_memory else "signal"
    return facts.reason or "exit"
