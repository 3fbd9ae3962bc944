"""`multikernel halt` and `kill`: end an instance, by asking and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import describe, options, output, target

if TYPE_CHECKING:
    from multikernel.machine import Instance


@click.command(epilog="Example:  multikernel halt web --timeout 5")
@options.instance
@options.timeout("How long it may take to finish.")
@click.option("--no-force", is_flag=True, help="Leave it running if it has not finished by then.")
@options.dry_run
@options.as_json
@options.verbose
def halt(instance: Instance, timeout: float, no_force: bool, dry_run: bool, as_json: bool) -> None:
    """Ask an instance to finish and stop.

    Its image stays loaded. One that has not stopped in time is killed, and that is said.
    """
    if dry_run:
        target.check_step(instance, "halt")
        output.done(describe.outcome(instance, dry_run=True), as_json, f"would halt {instance.name}")
        return
    with output.patience(f"halting {instance.name}, for up to {timeout:g} s"):
        end = instance.halt(timeout=timeout, force=not no_force)
    text = f"{instance.name} did not stop in time and was killed" if end.forced else f"halted {instance.name}"
    output.done(describe.outcome(instance, end=describe.end(end), dry_run=False), as_json, text)


@click.command(epilog="Example:  multikernel kill web")
@options.instance
@click.option("-f", "--force", is_flag=True, help="Do not mind if it does not run.")
@options.dry_run
@options.as_json
@options.verbose
def kill(instance: Instance, force: bool, dry_run: bool, as_json: bool) -> None:
    """End an instance at once.

    Whatever it is doing. Its image stays loaded.
    """
    if force and not instance.pid:
        output.done(describe.outcome(instance, end=None, dry_run=dry_run), as_json, f"{instance.name} does not run")
        return
    if dry_run:
        target.check_step(instance, "kill")
    end = None if dry_run else instance.kill()
    output.done(
        describe.outcome(instance, end=describe.end(end), dry_run=dry_run),
        as_json,
        f"{'would kill' if dry_run else 'killed'} {instance.name}",
    )
