"""The states of an instance, and which steps are legal from each: one table."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal, NamedTuple

from multikernel.errors import StateError

State = Literal["empty", "ready", "loaded", "active", "failed", "standby"]


class Step(NamedTuple):
    """What an instance can be asked to do."""

    legal: frozenset[str]
    """From which states."""
    leads_to: State | Literal["unchanged"] | None
    """The state after it. None: the instance is gone."""


STEPS = MappingProxyType(
    {
        "load": Step(frozenset({"ready", "loaded", "failed"}), "loaded"),
        "boot": Step(frozenset({"loaded", "failed"}), "active"),
        "halt": Step(frozenset({"active"}), "loaded"),
        "reboot": Step(frozenset({"active", "failed"}), "active"),
        "kill": Step(frozenset({"active", "standby"}), "loaded"),
        "unload": Step(frozenset({"loaded", "failed"}), "ready"),
        "delete": Step(frozenset({"ready", "loaded", "failed"}), None),
        "load --panic": Step(frozenset({"ready", "loaded", "active", "failed"}), "unchanged"),
    }
)
"""Every step there is, by name. Which end of itself leads an active instance to `loaded` and which to `failed` is
`multikernel.host.ends.judge`."""


def legal_steps(state: str) -> tuple[str, ...]:
    """The steps that are legal from `state`, in the order of the table."""
    return tuple(name for name, step in STEPS.items() if state in step.legal)


def check_step(name: str, state: str, step: str) -> None:
    """Refuse `step` of instance `name` unless it is legal from `state`.

    Raises:
        StateError: with the state and what is legal from it, in words and as fields `name`, `state`, `step`, `legal`.
    """
    if state not in STEPS[step].legal:
        raise refused(name, state, step)


def refused(name: str, state: str, step: str) -> StateError:
    """The error for a step that is not legal, or for another thing (`connect`, `wait`) that the state forbids."""
    legal = legal_steps(state)
    return StateError(
        f"cannot {step} {name!r}: it is {state}. Legal now: {', '.join(legal) or 'nothing'}.",
        name=name,
        state=state,
        step=step,
        legal=legal,
    )
