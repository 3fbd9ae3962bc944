"""`multikernel start`, `boot` and `exec`: boot an instance. Three names for it, since the field has three."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import click

from . import describe, foreign, options, output, target
from .follow import Follower

if TYPE_CHECKING:
    from multikernel.machine import Instance

Until: TypeAlias = Literal["active", "ready"]

_console = click.option("--console", is_flag=True, help="Then show its console, until it ends.")
_one_document = options.not_both("console", "as_json", "--json prints one document; --console would print more.")
_timeout = options.timeout("How long it may take to come so far.")


@click.command(epilog="Example:  multikernel start web --console")
@_one_document
@options.instance
@options.until
@_timeout
@_console
@options.dry_run
@options.as_json
@options.verbose
def start(instance: Instance, until: Until, timeout: float, console: bool, dry_run: bool, as_json: bool) -> None:
    """Boot an instance.

    It boots from the image that was loaded.
    """
    _boot(instance, until, timeout, console=console, dry_run=dry_run, as_json=as_json)


@click.command(epilog="Example:  multikernel boot web --until ready")
@_one_document
@options.instance
@options.until
@_timeout
@_console
@options.dry_run
@options.as_json
@options.verbose
def boot(instance: Instance, until: Until, timeout: float, console: bool, dry_run: bool, as_json: bool) -> None:
    """The same as start.

    The instance boots from the image that was loaded.
    """
    _boot(instance, until, timeout, console=console, dry_run=dry_run, as_json=as_json)


@click.command("exec", epilog="Example:  multikernel exec web")
@_one_document
@click.argument("words", nargs=-1, metavar="[NAME] [-- COMMAND...]")
@options.instance_id
@options.machine_name
@options.until
@_timeout
@_console
@options.dry_run
@options.as_json
@options.verbose
@foreign.options("exec")
def execute(
    words: tuple[str, ...],
    number: int | None,
    machine_name: str | None,
    until: Until,
    timeout: float,
    console: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Boot an instance.

    Without a COMMAND it does what start does. With one it is to run that inside an active instance: this is not there
    yet, and refused.
    """
    names = 1 if number is None else 0
    name = words[0] if words[:names] else None
    if words[names:]:
        raise click.ClickException(
            f"cannot run {words[names]!r} in an instance: running a command inside is not there yet. "
            "`exec NAME` alone boots; `send NAME` talks to what runs there."
        )
    target.check(name, number)
    with target.machine(machine_name) as machine:
        instance = target.instance(machine, name, number)
        _boot(instance, until, timeout, console=console, dry_run=dry_run, as_json=as_json)


def _boot(instance: Instance, until: Until, timeout: float, *, console: bool, dry_run: bool, as_json: bool) -> None:
    if dry_run:
        target.check_step(instance, "boot")
        output.done(describe.outcome(instance, dry_run=True), as_json, f"would boot {instance.name}")
        return
    with output.patience(f"booting {instance.name}, for up to {timeout:g} s"):
        instance.boot(until=until, timeout=timeout)
    output.done(describe.outcome(instance, dry_run=False), as_json, f"booted {instance.name}, pid {instance.pid}")
    if console:
        end = Follower(instance, lambda text: click.echo(text, nl=False)).until_end()
        click.get_current_context().exit(describe.exit_status(end))
