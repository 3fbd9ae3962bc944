"""The plots: what the README and docs/performance.md show."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benches.compare import show
from multikernel.tools.bench.cases import OURS

_OUR_COLOUR, _THEIR_COLOUR = "#c44e52", "#8c9bb0"
_DPI = 120


def draw(document: dict[str, Any], directory: Path) -> list[Path]:
    """Draw what the run has figures for."""
    mpl.use("agg")
    drawn = []
    plots: dict[str, Callable[[dict[str, Any], Figure], bool]] = {
        "messages": messages,
        "latency": latency,
        "goals": goals,
    }
    for name, plot in plots.items():
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        if plot(document, figure):
            drawn.append(directory / f"{name}.png")
            figure.savefig(drawn[-1], dpi=_DPI, metadata={"Software": None})
    return drawn


def messages(document: dict[str, Any], figure: Figure) -> bool:
    """M6: million messages a second, one a call, by size and by who carries them."""
    entries = [entry for entry in document["comparisons"] if entry["row"] == "M6"]
    works = list(dict.fromkeys(entry["work"] for entry in entries))
    if not works:
        return False
    for axes, work in zip(figure.subplots(1, len(works), squeeze=False)[0], works, strict=True):
        mine = [entry for entry in entries if entry["work"] == work]
        speeds = {entry["against"]: 1e-6 / entry["theirs_s"] for entry in mine}
        speeds[OURS] = 1e-6 / statistics.median(entry["ours_s"] for entry in mine)
        names = sorted(speeds, key=lambda name: speeds[name])
        colours = [_OUR_COLOUR if name == OURS else _THEIR_COLOUR for name in names]
        bars = axes.barh(names, [speeds[name] for name in names], color=colours)
        axes.bar_label(bars, [f"{speeds[name]:.3g}" for name in names], padding=3, fontsize=8)
        axes.set(title=work, xscale="log")
        axes.tick_params(axis="y", labelsize=8)
        axes.margins(x=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("million messages a second", fontsize=9)
    return True


def latency(document: dict[str, Any], figure: Figure) -> bool:
    """M9 and M10: the time of a round trip, from the middle one to the rarest."""
    timed = [entry for entry in document["comparisons"] if entry["latency_ns"]]
    kinds = list(dict.fromkeys((entry["row"], entry["work"]) for entry in timed))
    if not kinds:
        return False
    for axes, (row, work) in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        seen: dict[str, dict[str, float]] = {}
        for entry in timed:
            if (entry["row"], entry["work"]) == (row, work):
                seen |= entry["latency_ns"]
        axes.set_prop_cycle(color=mpl.colormaps["tab20"].colors)
        for who, found in seen.items():
            points = [name for name in found if name != "count"]
            style = {"color": _OUR_COLOUR, "linewidth": 2.5, "zorder": 3} if who == OURS else {"linewidth": 1.2}
            axes.plot(points, [found[point] / 1000 for point in points], marker=".", label=who, **style)
        axes.set(title=work, ylabel="microseconds", yscale="log")
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return True


def goals(document: dict[str, Any], figure: Figure) -> bool:
    """Each figure that has a goal, as a multiple of it: right of the line it is reached."""
    entries = [entry for entry in document["comparisons"] if entry["goal"] is not None]
    if not entries:
        return False
    figure.set_size_inches(8, 1 + 0.3 * len(entries))
    axes = figure.subplots()
    for place, entry in enumerate(reversed(entries)):
        limit = entry["goal"]["limit"]
        scale = limit if show.is_cost(entry) else 1 / limit
        low, middle, high = (entry[name] * scale for name in ("low", "ratio", "high"))
        colour = _THEIR_COLOUR if entry["verdict"] == "missed" else _OUR_COLOUR
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot([middle], [place], "o", color=colour)
    names = [f"{entry['row']}  {entry['work']}, against {entry['against']}" for entry in reversed(entries)]
    axes.set_yticks(range(len(entries)), names, fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="times the goal; right of the line: reached (median and range)")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return True
