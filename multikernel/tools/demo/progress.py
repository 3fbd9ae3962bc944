"""A progress bar on stderr: rich's where it is installed, else click's; nothing where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from multikernel.tools.terminal import is_terminal


@contextmanager
def bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for the length of the block; its value is to be called with how much of `total` is done."""
    if not is_terminal(sys.stderr):
        yield lambda _: None
        return
    try:
        import rich.progress
    except ImportError:
        with _click_bar(label, total) as update:
            yield update
        return
    from rich.console import Console

    columns = (
        rich.progress.TextColumn(f"{label:<{_WIDTH}}"),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TimeElapsedColumn(),
    )
    with rich.progress.Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(label, total=total)
        yield lambda done: shown.update(task, completed=done)


_WIDTH = 24  # characters of the longest label, so that the bars stand below each other


@contextmanager
def _click_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    with click.progressbar(length=total, label=f"{label:<{_WIDTH}}", file=sys.stderr) as shown:
        yield lambda done: shown.update(done - shown.pos)
