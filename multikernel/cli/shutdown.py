"""`multikernel shutdown`: end a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options, output

if TYPE_CHECKING:
    from multikernel.machine import Machine


@click.command(epilog="Example:  multikernel shutdown --machine default")
@options.machine
@options.dry_run
@options.as_json
@options.verbose
def shutdown(machine: Machine, dry_run: bool, as_json: bool) -> None:
    """End a machine and its instances.

    Instances are asked to finish first, and killed if they do not. Nothing of the machine is left.
    """
    name, instances = machine.name, list(machine)
    ended = f"{len(instances)} instance{'' if len(instances) == 1 else 's'}"
    if not dry_run:
        with output.patience(f"shutting down {name}"):
            machine.shutdown()
    output.done(
        {"machine": name, "instances": instances, "dry_run": dry_run},
        as_json,
        f"{'would shut down' if dry_run else 'shut down'} {name} ({ended})",
    )
