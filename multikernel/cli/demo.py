"""`multikernel demo`: two instances at work on real input."""

from __future__ import annotations

import click

from . import options


@click.command(epilog="Example:  multikernel demo --cpus 0-1")
@click.option(
    "--input",
    "directory",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Python sources to read. Default: this interpreter's standard library.",
)
@options.cpus("The cpus of the two. Default: the first two that may be used.")
@options.as_json
def demo(directory: str | None, cpus: tuple[int, ...] | None, as_json: bool) -> None:
    """Show two instances at work.

    They parse every Python source file of a directory: one reads and adds up, the other parses. The totals are
    compared with those of one plain process, the times with multiprocessing's. The machine is called demo-PID, so that
    a second shell can look.
    """
    from multikernel.tools import demo as tool
    from multikernel.units import format_cpus

    spec = None if cpus is None else format_cpus(cpus)
    click.get_current_context().exit(tool.run(directory, spec, as_json))
