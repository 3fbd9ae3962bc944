"""`multikernel reboot`: a new incarnation in place of the one that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from . import describe, options, output, target

if TYPE_CHECKING:
    from multikernel.machine import Instance


@click.command(epilog="Example:  multikernel reboot web")
@options.instance
@options.until
@options.timeout("How long it may take. The old incarnation has half of it to finish, and is killed then.")
@options.dry_run
@options.as_json
@options.verbose
def reboot(instance: Instance, until: Literal["active", "ready"], timeout: float, dry_run: bool, as_json: bool) -> None:
    """Boot an instance anew.

    It keeps its id, its links, and messages that it has not dealt with. One that has failed can be rebooted, too.
    """
    if dry_run:
        target.check_step(instance, "reboot")
        output.done(describe.outcome(instance, dry_run=True), as_json, f"would reboot {instance.name}")
        return
    with output.patience(f"rebooting {instance.name}, for up to {timeout:g} s"):
        instance.reboot(until=until, timeout=timeout)
    output.done(
        describe.outcome(instance, dry_run=False), as_json, f"rebooted {instance.name}, {describe.now(instance)}"
    )
