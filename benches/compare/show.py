"""Runs as tables: for a terminal, and for a page."""

from __future__ import annotations

from typing import Any

from multikernel.tools.bench.compare import aligned, duration

HEADERS = ("", "work", "against", "ratio", "range", "goal", "", "ours", "theirs", "cache line")


def is_cost(entry: dict[str, Any]) -> bool:
    """Whether a comparison is held against a most: then its ratio is ours over theirs, and less is better."""
    return entry["goal"] is not None and entry["goal"]["most"] is not None


def ratio(entry: dict[str, Any]) -> tuple[float, float, float]:
    """The ratio that is shown, with its lowest and highest: their cost over ours, unless it is a cost."""
    found = entry["ratio"], entry["low"], entry["high"]
    if is_cost(entry):
        return 1 / found[0], 1 / found[2], 1 / found[1]
    return found


def cells(entry: dict[str, Any]) -> tuple[str, ...]:
    """A comparison, for people; as HEADERS without the row."""
    shown, low, high = ratio(entry)
    goal = "" if entry["goal"] is None else f"{'<=' if is_cost(entry) else '>='} {entry['goal']['limit']:g}x"
    return (
        entry["work"],
        entry["against"],
        f"{'cost ' if is_cost(entry) else ''}{shown:.2f}x",
        f"{low:.2f}-{high:.2f}",
        goal,
        entry["verdict"],
        duration(entry["ours_s"]),
        duration(entry["theirs_s"]),
        placement(entry),
    )


def placement(entry: dict[str, Any]) -> str:
    """The bare cache line before and after, and what that is called."""
    lines = "-".join(f"{ns}" for ns in sorted(set(entry["cache_line_ns"])))
    return f"{lines} ns, {entry['placement'] if entry['steady'] else 'it changed'}"


def count_cells(entry: dict[str, Any]) -> tuple[str, ...]:
    """A count, for people."""
    goal = "" if entry["most"] is None else f"<= {entry['most']:g}"
    return entry["work"], entry["what"], number(entry["value"]), goal, entry["verdict"]


def number(value: float) -> str:
    """A count, or a mean of counts, for people."""
    return f"{value:g}" if value == round(value) else f"{value:.3f}"


def terminal(document: dict[str, Any]) -> list[str]:
    """All of a run, as lines."""
    lines = []
    if document["comparisons"]:
        lines += aligned([HEADERS, *((entry["row"], *cells(entry)) for entry in document["comparisons"])], left=3)
    latencies = latency_rows(document)
    if latencies:
        lines += ["", *aligned(latencies, left=3)]
    if document["counts"]:
        headers = ("", "counted", "what", "value", "goal", "")
        lines += ["", *aligned([headers, *((e["row"], *count_cells(e)) for e in document["counts"])], left=3)]
    lines += [""] + [f"left out: {peer}: {why}" for peer, why in document["missing"].items()]
    lines += [f"not shown: {e['row']} {e['work']} {e['against']}: {e['why']}" for e in document["failed"]]
    return lines


def latency_rows(document: dict[str, Any]) -> list[tuple[str, ...]]:
    """Percentiles, each who once a work; with headers, or nothing at all."""
    seen: dict[tuple[str, str, str], dict[str, float]] = {}
    for entry in document["comparisons"]:
        for who, found in entry["latency_ns"].items():
            seen.setdefault((entry["row"], entry["work"], who), found)
    if not seen:
        return []
    names = list(next(iter(seen.values())))
    return [
        ("", "time of each", "by", *names),
        *(
            (*key, *(f"{found[name]:,}" if name == "count" else duration(found[name] / 1e9) for name in names))
            for key, found in seen.items()
        ),
    ]
