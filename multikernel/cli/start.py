"""`multikernel start` and `boot`: boot an instance. `exec NAME` does it too, since the field has three names for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import click

from . import describe, options, output, target
from .follow import Follower

if TYPE_CHECKING:
    from multikernel.machine import Instance

Until: TypeAlias = Literal["active", "ready"]

console_option = click.option("--console", is_flag=True, help="Then show its console, until it ends.")
one_document = options.not_both("console", "as_json", "--json prints one document; --console would print more.")
timeout_option = options.timeout("How long it may take to come so far.")


@click.command(epilog="Example:  multikernel start web --console")
@one_document
@options.instance
@options.until
@timeout_option
@console_option
@options.dry_run
@options.as_json
@options.verbose
def start(instance: Instance, until: Until, timeout: float, console: bool, dry_run: bool, as_json: bool) -> None:
    """Boot an instance.

    It boots from the image that was loaded.
    """
    boot_instance(instance, until, timeout, console=console, dry_run=dry_run, as_json=as_json)


@click.command(epilog="Example:  multikernel boot web --until ready")
@one_document
@options.instance
@options.until
@timeout_option
@console_option
@options.dry_run
@options.as_json
@options.verbose
def boot(instance: Instance, until: Until, timeout: float, console: bool, dry_run: bool, as_json: bool) -> None:
    """The same as start.

    The instance boots from the image that was loaded.
    """
    boot_instance(instance, until, timeout, console=console, dry_run=dry_run, as_json=as_json)


def boot_instance(
    instance: Instance, until: Until, timeout: float, *, console: bool, dry_run: bool, as_json: bool
) -> None:
    """Boot it, and say so; with `console` stay until its end."""
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
