"""`multikernel wait`: wait until an instance has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import describe, options, output

if TYPE_CHECKING:
    from multikernel.machine import Instance


@click.command(epilog="Example:  multikernel wait web --timeout 60")
@options.instance
@click.option("--timeout", callback=options.seconds, metavar="SECONDS", help="How long. Default: as long as it takes.")
@options.as_json
@options.verbose
def wait(instance: Instance, timeout: float | None, as_json: bool) -> None:
    """Wait until an instance has ended, and say how.

    If nothing of it runs, how its last incarnation ended. Exit status: 0 however it ended, 7 if it has not in time.
    """
    end = instance.wait(timeout=timeout)
    if as_json:
        output.document(describe.outcome(instance, end=describe.end(end), exit_status=describe.exit_status(end)))
    else:
        click.echo(describe.end_text(end))
