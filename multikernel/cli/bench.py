"""`multikernel bench`: measure what is ours, beside what every Python has."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

from multikernel.tools.terminal import is_terminal

from . import options, output

_ALL = "all"


@click.command(epilog="Example:  multikernel bench message blocking --cpus 0-1")
@click.argument("names", nargs=-1, metavar="[NAME...|all]")
@options.cpus("The cpus of the two processes. Default: the first two that may be used.")
@click.option(
    "--rounds", type=click.IntRange(1), default=9, show_default=True, help="Pairs of samples of each comparison."
)
@options.as_json
def bench(names: tuple[str, ...], cpus: tuple[int, ...] | None, rounds: int, as_json: bool) -> None:
    """Measure messages, round trips, interrupts and boot.

    Without a NAME the benches are listed. Each runs in two pinned processes, in turn with os.pipe, multiprocessing and
    the like, and every message is compared with what it should be. The ratio is their time over ours: above 1 ours is
    faster. The cache line is a bare round trip between the two cpus, before and after: compare only figures that were
    measured at about the same.
    """
    from multikernel.tools import bench as tool

    known = tool.available()
    if not names:
        if as_json:
            output.document({"benches": known})
        else:
            output.table(("BENCH", "WHAT IT MEASURES"), known.items())
        return
    from multikernel.tools.bench.compare import Effort, table

    chosen = _chosen(names, known)
    with _progress() as starts:
        found = list(tool.run(chosen, _two(cpus), Effort(rounds), starts=starts))
    if as_json:
        output.document({"comparisons": [tool.as_document(each) for each in found]})
        return
    for line in table(found):
        click.echo(line)


def _chosen(names: tuple[str, ...], known: dict[str, str]) -> list[str]:
    """The benches that are meant, each once, in the order of the list."""
    for name in names:
        if name != _ALL and name not in known:
            raise click.UsageError(f"there is no bench {name!r}: there are {', '.join(known)}, and {_ALL}")
    return [name for name in known if name in names or _ALL in names]


def _two(cpus: tuple[int, ...] | None) -> tuple[int, int]:
    from multikernel.resources.topology import allowed

    usable = allowed()
    wanted = usable[:2] if cpus is None else cpus
    if len(wanted) != 2:
        raise click.UsageError(f"a bench needs two cpus, not {len(wanted)}; this process may use {len(usable)}")
    lacking = set(wanted) - set(usable)
    if lacking:
        from multikernel.units import format_cpus

        raise click.UsageError(f"this process may not use cpu {format_cpus(lacking)}; it may use {format_cpus(usable)}")
    return wanted[0], wanted[1]


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None]]:
    """A line on a terminal that says what is measured now; nothing elsewhere."""
    if not is_terminal(sys.stderr):
        yield lambda _done, _all, _what: None
        return

    def starts(done: int, of: int, what: str) -> None:
        click.echo(f"\r\033[K[{done + 1}/{of}] {what}", nl=False, err=True)

    try:
        yield starts
    finally:
        click.echo("\r\033[K", nl=False, err=True)
