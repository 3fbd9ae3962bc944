"""What the demo prints: tables for people, one document for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from multikernel.tools.terminal import is_terminal, plain

from .comparison import Outcome
from .counting import Findings, Totals
from .words import PARSER, READER

_MEGABYTE = 1_000_000
_NOTHING = Outcome(Findings(), 0.0)
_COUNTED = tuple(Totals.__dataclass_fields__)


@dataclass
class Report:
    """All that came out.

    cpus: of reader and parser; result: what reader replied, `findings` among it; instances: their `status` in the view.
    """

    directory: str
    machine: str
    cpus: tuple[int, int]
    result: dict[str, Any]
    findings: Findings
    instances: dict[str, dict[str, Any]]
    pool: Outcome = field(default=_NOTHING)
    plain: Outcome = field(default=_NOTHING)

    @property
    def equal(self) -> bool:
        """Whether the others have counted the same."""
        return self.findings.totals == self.plain.findings.totals == self.pool.findings.totals

    def document(self) -> dict[str, Any]:
        """Plain data with stable keys. Times in seconds, sizes in bytes, 1 MB is 1,000,000 bytes."""
        return {
            "input": self.directory,
            "machine": self.machine,
            "cpus": {READER: self.cpus[0], PARSER: self.cpus[1], "shared": self.cpus[0] == self.cpus[1]},
            "totals": asdict(self.findings.totals),
            "bytes": self.findings.size,
            "equal": self.equal,
            "compared": {
                "plain": asdict(self.plain.findings.totals),
                "pool": asdict(self.pool.findings.totals),
            },
            "largest": [
                {"name": name, "bytes": counts.size} | {key: getattr(counts, key) for key in _COUNTED[2:]}
                for name, counts in self.findings.largest
            ],
            "unparsed": [{"name": name, "reason": reason} for name, reason in self.findings.unparsed],
            "speed": {name: self._speed(seconds) for name, seconds in self._seconds().items()},
            "ratio": {
                name: _ratio(seconds, self.result["seconds"])
                for name, seconds in self._seconds().items()
                if name != "instances"
            },
            "request_reply": {
                "median_s": _in_seconds(self.result["median_ns"]),
                "p99_s": _in_seconds(self.result["p99_ns"]),
                "in_flight": self.result["in_flight"],
            },
            "instances": self.instances,
        }

    def show(self) -> None:
        """Print it for people."""
        totals = self.findings.totals
        click.echo(
            f"{totals.files:,} files of {self.directory}, {self.findings.size / _MEGABYTE:.1f} MB: "
            f"reader on cpu {self.cpus[0]}, parser on cpu {self.cpus[1]}\n"
        )
        _table(
            ("totals", *_COUNTED),
            [
                (name, *(f"{getattr(counted, key):,}" for key in _COUNTED))
                for name, counted in (
                    ("two instances", totals),
                    ("Pool(1)", self.pool.findings.totals),
                    ("one process", self.plain.findings.totals),
                )
            ],
        )
        click.echo("The totals are equal.\n" if self.equal else "The totals are NOT equal.\n")
        if self.findings.largest:
            _table(
                ("largest modules", "bytes", *_COUNTED[2:]),
                [
                    (name, f"{counts.size:,}", *(f"{getattr(counts, key):,}" for key in _COUNTED[2:]))
                    for name, counts in self.findings.largest
                ],
            )
            click.echo()
        if self.findings.unparsed:
            _table(("do not parse", "because"), self.findings.unparsed, right=False)
            click.echo()
        self._show_speed()
        _table(
            ("instance", "state", "cpu", "messages sent", "received", "MB sent", "received", "IPIs received"),
            [_instance_row(name, status) for name, status in self.instances.items()],
        )

    def _show_speed(self) -> None:
        ours = self.result["seconds"]
        names = {"instances": "two instances", "pool": "multiprocessing.Pool(1)", "plain": "one plain process"}
        rows = []
        for key, seconds in self._seconds().items():
            speed, ratio = self._speed(seconds), _ratio(seconds, ours)
            figures = [speed["seconds"], speed["files_per_s"], speed["mb_per_s"], ratio]
            rows.append((names[key], *("" if figure is None else f"{figure:,.2f}" for figure in figures)))
        _table(("speed", "seconds", "files/s", "MB/s", "time, instances = 1"), rows)
        if self.result["median_ns"] is not None:
            median, p99 = self.result["median_ns"] / 1e6, self.result["p99_ns"] / 1e6
            click.echo(
                f"request to reply: median {median:.2f} ms, p99 {p99:.2f} ms, parsing and waiting behind up to "
                f"{self.result['in_flight'] - 1} other files included"
            )
        click.echo()

    def _seconds(self) -> dict[str, float]:
        return {"instances": self.result["seconds"], "pool": self.pool.seconds, "plain": self.plain.seconds}

    def _speed(self, seconds: float) -> dict[str, float | None]:
        """Files and MB a second; None for so little work that it took no time."""
        files, size = self.findings.totals.files, self.findings.size
        return {
            "seconds": seconds,
            "files_per_s": _ratio(files, seconds),
            "mb_per_s": _ratio(size / _MEGABYTE, seconds),
        }


def _ratio(over: float, under: float) -> float | None:
    return over / under if under > 0 else None


def _in_seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def _instance_row(name: str, status: dict[str, Any]) -> tuple[str, ...]:
    counters = status["counters"]
    return (
        name,
        status["state"],
        str(status["cpu"]),
        f"{counters['sent']:,}",
        f"{counters['received']:,}",
        f"{counters['sent_bytes'] / _MEGABYTE:.1f}",
        f"{counters['received_bytes'] / _MEGABYTE:.1f}",
        f"{counters['ipis_received']:,}",
    )


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: bool = True) -> None:
    """Print a table, its columns but the first flush right: by rich on a terminal that has it."""
    cells = [[plain(cell) for cell in row] for row in rows]
    if is_terminal(sys.stdout) and _rich_table(headers, cells, right=right):
        return
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    for row in (headers, *cells):
        rest = (f"{cell:>{width}}" if right else cell for cell, width in zip(row[1:], widths[1:], strict=True))
        click.echo("  ".join((f"{row[0]:<{widths[0]}}", *rest)).rstrip())


def _rich_table(headers: Sequence[str], cells: list[list[str]], *, right: bool) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number and right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
    return True
