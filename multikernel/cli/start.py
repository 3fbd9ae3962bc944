"""`multikernel start` and `boot`: boot an instance. `exec NAME` does it too, since the field has three names for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import click

from . import describe, options, output, target
from .follow import Follower

if TYPE_CHECKING:
    from multikernel.errors import MultikernelError
    from multikernel.machine import Instance

Until: TypeAlias = Literal["active", "ready"]

console_option = click.option("--console", is_flag=True, help="Then show its console, until it ends.")
one_document = options.not_both("console", "as_json", "--json prints one document; --console would print more.")
cold_option = click.option("--cold", is_flag=True, help="In a fresh interpreter, with nothing imported ahead.")
timeout_option = options.timeout("How long it may take to come so far.")


@click.command(epilog="\b\nExample:\n  multikernel start web --console\n  multikernel start --all")
@one_document
@options.instances
@options.until
@timeout_option
@cold_option
@console_option
@options.dry_run
@options.as_json
@options.verbose
def start(
    instances: list[Instance], until: Until, timeout: float, cold: bool, console: bool, dry_run: bool, as_json: bool
) -> None:
    """Boot instances, all at once.

    Each boots from the image that was loaded. With --all: those that have one and do not run.
    """
    _boot_all(instances, until, timeout, cold=cold, console=console, dry_run=dry_run, as_json=as_json)


@click.command(epilog="\b\nExample:\n  multikernel boot web --until ready\n  multikernel boot web db")
@one_document
@options.instances
@options.until
@timeout_option
@cold_option
@console_option
@options.dry_run
@options.as_json
@options.verbose
def boot(
    instances: list[Instance], until: Until, timeout: float, cold: bool, console: bool, dry_run: bool, as_json: bool
) -> None:
    """The same as start.

    Each instance boots from the image that was loaded. With --all: those that have one and do not run.
    """
    _boot_all(instances, until, timeout, cold=cold, console=console, dry_run=dry_run, as_json=as_json)


def _boot_all(
    instances: list[Instance], until: Until, timeout: float, *, cold: bool, console: bool, dry_run: bool, as_json: bool
) -> None:
    if len(instances) == 1:
        boot_instance(instances[0], until, timeout, cold=cold, console=console, dry_run=dry_run, as_json=as_json)
        return
    if console:
        raise click.UsageError("--console shows one console: name one instance.")
    names = ", ".join(instance.name for instance in instances)
    if not instances:
        output.done({"instances": [], "dry_run": dry_run}, as_json, "no instance has an image and does not run")
        return
    errors: list[MultikernelError | None] = []
    if dry_run:
        for instance in instances:
            target.check_step(instance, "boot")
    else:
        from multikernel.tools import together

        with output.patience(f"booting {names}, for up to {timeout:g} s"):
            errors = together.boot(instances, until, timeout, cold=cold)
    failed = [error for error in errors if error is not None]
    for error in failed[1:]:
        output.talk(str(error))
    if failed:
        raise failed[0]
    document = {"machine": instances[0].machine.name, "instances": [describe.instance(each) for each in instances]}
    output.done({**document, "dry_run": dry_run}, as_json, f"{'would boot' if dry_run else 'booted'} {names}")


def boot_instance(
    instance: Instance, until: Until, timeout: float, *, cold: bool = False, console: bool, dry_run: bool, as_json: bool
) -> None:
    """Boot it, and say so; with `console` stay until its end."""
    if dry_run:
        target.check_step(instance, "boot")
        output.done(describe.outcome(instance, dry_run=True), as_json, f"would boot {instance.name}")
        return
    with output.patience(f"booting {instance.name}, for up to {timeout:g} s"):
        instance.boot(until=until, timeout=timeout, cold=cold)
    output.done(describe.outcome(instance, dry_run=False), as_json, f"booted {instance.name}, {describe.now(instance)}")
    if console:
        end = Follower(instance, lambda text: click.echo(text, nl=False)).until_end()
        click.get_current_context().exit(describe.exit_status(end))
