"""`multikernel console`: what an instance has printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import describe, options, output
from .follow import Follower

if TYPE_CHECKING:
    from multikernel.machine import Instance


@click.command(epilog="Example:  multikernel console web --follow")
@options.not_both("follow", "as_json", "--json prints one document, which --follow would never end.")
@options.instance
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added, until the instance ends.")
@options.as_json
@options.verbose
def console(instance: Instance, follow: bool, as_json: bool) -> None:
    """Print what an instance has printed.

    The console of its newest incarnation: the last 64 KiB, also when that has ended. With --follow the exit status is
    the instance's own, and Ctrl-C leaves it running.
    """
    path = f"instances/{instance.name}/console"
    if as_json:
        machine = instance.machine
        output.document({"machine": machine.name, "instance": instance.name, **machine.proc.snapshot(path)})
    elif follow and instance.pid:
        end = Follower(instance, lambda text: click.echo(text, nl=False)).until_end()
        click.get_current_context().exit(describe.exit_status(end))
    else:
        click.echo(instance.machine.proc[path], nl=False)
