"""Find what a command is about: the machine, and the instance by its name or its id."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from . import output

if TYPE_CHECKING:
    from multikernel.machine import Instance, Machine


class NotRunning(click.ClickException):
    """There is no machine to talk to."""

    exit_code = 3

    def __init__(self) -> None:
        super().__init__("no machine is running. `multikernel init` makes one that stays.")


@contextlib.contextmanager
def machine(name: str | None) -> Iterator[Machine]:
    """Join the machine `name`, or the one that is meant without a name; leave it at the end."""
    from multikernel import Machine

    if none_runs(name):
        raise NotRunning
    with Machine.attach(name) as joined:
        output.detail(f"joined machine {joined.name!r}, host pid {joined.pid}")
        yield joined


def none_runs(name: str | None) -> bool:
    """Whether no machine was named and none is running."""
    from multikernel import machines

    return name is None and not machines()


def check(name: str | None, number: int | None) -> None:
    """Refuse a command line that says neither which instance by name nor by id."""
    if name is None and number is None:
        raise click.UsageError("which instance? Give its NAME, or its id with --id.")


def instance(machine: Machine, name: str | None, number: int | None) -> Instance:
    """The instance called `name`, or with the id `number`; both, if both are given."""
    from multikernel.errors import NotFound

    if name is not None:
        named = machine[name]
        if number is not None and named.id != number:
            raise click.UsageError(f"instance {name!r} has the id {named.id}, not {number}.")
        return named
    for each in map(machine.__getitem__, machine):
        if each.id == number:
            return each
    raise NotFound(
        f"no instance of machine {machine.name!r} has the id {number}. There are: {', '.join(machine) or 'none'}.",
        id=number,
    )


def check_step(instance: Instance, step: str) -> None:
    """Refuse a step that is not legal from the state that the instance is in now, as the host would."""
    from multikernel.host.states import check_step as check_legal

    check_legal(instance.name, instance.state, step)


def check_active(instance: Instance, what: str) -> None:
    """Refuse what only a running instance can have done to it."""
    from multikernel.host.states import refused

    if instance.state not in ("active", "standby"):
        raise refused(instance.name, instance.state, what)
