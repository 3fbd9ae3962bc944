"""Writing a run's tables into a page, between markers; all else in it is people's and stays as it is.

    <!-- table M6 -->
    whatever is between them is replaced
    <!-- end -->

NAME is a row, `latency`, `machine`, `missing`, or `highlights`: what a reader in a hurry wants to know.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from benches.compare import show

HIGHLIGHTS = ("M6", "M7", "M9", "M10", "M11", "M15", "M16")

MARKED = re.compile(r"<!-- table (?P<name>\S+) -->\n.*?<!-- end -->", re.DOTALL)


def write(document: dict[str, Any], page: Path) -> None:
    """Put the tables into a page. ValueError: it has no markers, or one for what there is not."""
    text = page.read_text()
    if not MARKED.search(text):
        raise ValueError(f"{page} has no place for a table: write <!-- table NAME --> and <!-- end -->, a line each")
    page.write_text(MARKED.sub(lambda found: _filled(document, found["name"], page), text))


def _filled(document: dict[str, Any], name: str, page: Path) -> str:
    lines = table(document, name)
    if lines is None:
        known = sorted({*document["rows"], "highlights", "latency", "machine", "missing"})
        raise ValueError(f"{page} wants a table {name!r}; this run has {', '.join(known)}")
    return "\n".join([f"<!-- table {name} -->", "", *lines, "", "<!-- end -->"])


def table(document: dict[str, Any], name: str) -> list[str] | None:
    """The lines of a table; None: there is none of that name."""
    if name == "machine":
        return _machine(document)
    if name == "missing":
        return _missing(document)
    if name == "highlights":
        return _highlights(document)
    if name == "latency":
        headers, *rows = show.latency_rows(document) or [("", "time of each", "by")]
        return _markdown(headers, rows)
    if name not in document["rows"]:
        return None
    return _row(document, name)


def _row(document: dict[str, Any], name: str) -> list[str]:
    """Comparisons, counts, and what is not shown."""
    lines: list[str] = []
    compared = [show.cells(entry) for entry in document["comparisons"] if entry["row"] == name]
    counted = [show.count_cells(entry) for entry in document["counts"] if entry["row"] == name]
    if compared:
        lines += _markdown(show.HEADERS[1:], compared)
    if counted:
        lines += _markdown(("counted", "what", "value", "goal", ""), counted)
    for entry in document["failed"]:
        if entry["row"] == name:
            against = f", against {entry['against']}" if entry["against"] else ""
            lines += ["", f"Not shown: {entry['work']}{against}: {entry['why']}"]
    return lines


def _highlights(document: dict[str, Any]) -> list[str]:
    """What has a goal in the rows that most people ask for, without the goals: those are on the long page."""
    rows = []
    for entry in document["comparisons"]:
        if entry["row"] in HIGHLIGHTS and entry["goal"] is not None:
            work, against, ratio, between, *_, placement = show.cells(entry)
            rows.append((work, against, ratio, between, placement))
    return _markdown(("work", "against", "ratio", "range", "cache line"), rows)


def _machine(document: dict[str, Any]) -> list[str]:
    machine = document["machine"]
    cpus = " and ".join(map(str, document["cpus"]))
    days = sorted({when[:10] for when in document["rows"].values()})
    text = (
        f"{machine['cpu']}, {machine['cpus']} cpus, of which {cpus} were used; Linux {machine['kernel']} on "
        f"{machine['architecture']}, Python {machine['python']}, multikernel {machine['multikernel']}; "
        f"{document['rounds']} rounds; {' to '.join(dict.fromkeys((days[0], days[-1])))}."
    )
    return [text]


def _missing(document: dict[str, Any]) -> list[str]:
    if not document["missing"]:
        return ["All peers were there."]
    return [f"* {peer} was left out: {why}" for peer, why in document["missing"].items()]


def _markdown(headers: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [headers, ("---",) * len(headers), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
