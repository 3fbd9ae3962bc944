"""How commands say things: data on stdout, talk on stderr, colour on a terminal only."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from multikernel.tools.terminal import is_terminal, plain

COLOURS = {
    "active": "green",
    "ok": "green",
    "ready": "cyan",
    "loaded": "cyan",
    "standby": "cyan",
    "limited": "yellow",
    "failed": "red",
    "missing": "red",
}
"""What is coloured where it stands alone in a column."""

_PATIENCE = 1.0  # seconds before a command that takes its time says so


def document(data: dict[str, Any]) -> None:
    """Print the one JSON document of a command."""
    click.echo(json.dumps(data, indent=2))


def talk(text: str) -> None:
    """Say something to the person, if there is one."""
    click.echo(text, err=True)


def detail(text: str) -> None:
    """Say something that only `--verbose` asks for."""
    ctx = click.get_current_context(silent=True)
    if ctx is not None and ctx.find_root().ensure_object(dict).get("verbose"):
        talk(text)


def done(data: dict[str, Any], as_json: bool, text: str) -> None:
    """The outcome of a command that did something: its document for a program, else one line of talk."""
    if as_json:
        document(data)
    else:
        talk(text)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns, by rich on a terminal that has it. The last column is wrapped to the terminal's width."""
    cells = [[plain(cell) for cell in row] for row in rows]
    if is_terminal(sys.stdout) and _rich_table(headers, cells):
        return
    _plain_table(headers, cells)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values, a line each; further lines of a value are indented."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows) + 1
    for name, value in rows:
        first, *rest = value.splitlines() or [""]
        click.echo(f"{name + ':':<{width}} {_coloured(plain(first), 0)}".rstrip())
        for line in rest:
            click.echo(" " * (width + 1) + plain(line))


def data(content: bytes) -> None:
    """Print bytes as they are; a terminal gets a newline after them if they bring none."""
    click.echo(content, nl=is_terminal(sys.stdout) and not content.endswith(b"\n"))


@contextlib.contextmanager
def patience(text: str) -> Iterator[None]:
    """Say `text` to a person who has waited for the block for a second."""
    if not is_terminal(sys.stderr):
        yield
        return
    timer = threading.Timer(_PATIENCE, talk, [f"{text} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def wants_colour() -> bool:
    """Whether stdout is a terminal whose user has not asked for none (NO_COLOR, TERM=dumb)."""
    return is_terminal(sys.stdout) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _plain_table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    import shutil
    import textwrap

    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)][:-1]
    indent = sum(widths) + 2 * len(widths)
    room = max(shutil.get_terminal_size().columns - indent, 30) if is_terminal(sys.stdout) else sys.maxsize
    for row in (headers, *cells):
        first = "".join(f"{_coloured(cell, width)}  " for cell, width in zip(row, widths, strict=False))
        last = textwrap.wrap(row[-1], room) or [""]
        click.echo(f"{first}{last[0]}".rstrip())
        for line in last[1:]:
            click.echo(" " * indent + line)


def _coloured(cell: str, width: int) -> str:
    padded = f"{cell:<{width}}"
    colour = COLOURS.get(cell)
    return click.style(padded, fg=colour) if colour else padded


def _rich_table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> bool:
    """Print the table with rich, if it is installed."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        shown.add_column(header, overflow="fold", no_wrap=header != headers[-1])
    for row in cells:
        shown.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    Console(no_color=not wants_colour(), highlight=False).print(shown)
    return True
