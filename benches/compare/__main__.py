"""`python -m benches.compare`: ours and the peers, side by side."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from benches.compare import report, show
from benches.compare.result import Run, this_machine
from benches.compare.rows import all_rows
from benches.compare.run import run
from multikernel.cli import options
from multikernel.resources.topology import allowed
from multikernel.tools.bench.compare import Effort

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("rows", nargs=-1, metavar="[ROW...]")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Pairs of samples of each.")
@options.cpus("The cpus of the two sides. Default: the first two that may be used.")
@click.option("--json", "kept", type=_FILE, metavar="FILE", help="Keep the run there; other rows in it stay.")
@click.option("--from", "given", type=_FILE, metavar="FILE", help="Measure nothing: show, plot and report that run.")
@click.option(
    "--plots", "directory", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Draw into it."
)
@click.option(
    "--report",
    "pages",
    type=_FILE,
    multiple=True,
    metavar="PAGE",
    help="Put the tables between its markers. Repeatable.",
)
def main(
    rows: tuple[str, ...],
    rounds: int,
    cpus: tuple[int, ...] | None,
    kept: Path | None,
    given: Path | None,
    directory: Path | None,
    pages: tuple[Path, ...],
) -> None:
    """Measure ROWs (default: all) of ours beside the peers that are installed, and print them.

    Ours and a peer in turn, each in two pinned processes; every message is compared. A peer that is not here is named
    and left out; a comparison in which a message was wrong, or nothing came of it, is named and not shown.
    """
    if given is not None:
        if rows or kept:
            raise click.UsageError("--from shows a run as it is: leave out the rows and --json")
        found = _load(given)
    else:
        found = _measure(rows, rounds, cpus, kept)
    document = asdict(found)
    for line in show.terminal(document):
        click.echo(line)
    try:
        if directory is not None:
            from benches.compare import plots  # matplotlib takes its time

            directory.mkdir(parents=True, exist_ok=True)
            for drawn in plots.draw(document, directory):
                click.echo(f"drawn: {drawn}", err=True)
        for page in pages:
            report.write(document, page)
    except (OSError, ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from error


def _measure(rows: tuple[str, ...], rounds: int, cpus: tuple[int, ...] | None, kept: Path | None) -> Run:
    known = all_rows()
    for row in rows:
        if row not in known:
            raise click.UsageError(f"there is no row {row!r}: there are {', '.join(known)}")
    chosen = {name: row for name, row in known.items() if not rows or name in rows}
    two = tuple(allowed()[:2]) if cpus is None else cpus
    if len(two) != 2:
        raise click.UsageError(f"two cpus are needed, not {len(two)}")
    if kept is not None and not kept.parent.is_dir():
        raise click.UsageError(f"--json {kept}: there is no directory {kept.parent} to write into")
    found = Run(this_machine(), rounds, list(two))
    if kept is not None and kept.exists():
        found = _load(kept).without(chosen)
        found.machine, found.rounds, found.cpus = this_machine(), rounds, list(two)
        found.missing.clear()
    for name, row in chosen.items():
        run(name, row, (two[0], two[1]), Effort(rounds), found, lambda line: click.echo(line, err=True))
        if kept is not None:  # a run takes minutes: what is measured is measured
            found.save(kept)
    return found


def _load(path: Path) -> Run:
    try:
        return Run.load(path)
    except (OSError, ValueError, TypeError) as error:
        raise click.UsageError(f"{path} cannot be read as a run: {error}") from error


if __name__ == "__main__":
    main()
