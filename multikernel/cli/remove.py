"""`multikernel unload` and `delete`: take an instance's image, or the instance itself, out of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import describe, options, output, target

if TYPE_CHECKING:
    from multikernel.machine import Instance


@click.command(epilog="Example:  multikernel unload web")
@options.instance
@options.dry_run
@options.as_json
@options.verbose
def unload(instance: Instance, dry_run: bool, as_json: bool) -> None:
    """Take an instance's image away.

    Its cpus and memory stay reserved.
    """
    if dry_run:
        target.check_step(instance, "unload")
    else:
        instance.unload()
    text = f"{'would unload' if dry_run else 'unloaded'} {instance.name}"
    output.done(describe.outcome(instance, dry_run=dry_run), as_json, text)


@click.command(epilog="Example:  multikernel delete web --force")
@options.instance
@click.option("-f", "--force", is_flag=True, help="Even if an image is loaded.")
@options.dry_run
@options.as_json
@options.verbose
def delete(instance: Instance, force: bool, dry_run: bool, as_json: bool) -> None:
    """Delete an instance.

    Its cpus and memory are free again. One that runs is not deleted: halt it first.
    """
    target.check_step(instance, "delete")  # before it is said what --force would do
    if instance.state != "ready" and not force:
        raise click.ClickException(
            f"{instance.name!r} has an image loaded (it is {instance.state}): unload it first, or give --force."
        )
    outcome = describe.outcome(instance, dry_run=dry_run)
    if not dry_run:
        instance.delete()
    output.done(outcome, as_json, f"{'would delete' if dry_run else 'deleted'} {instance.name}")
