"""Running a row: each comparison by itself, so that what fails is named, and the rest is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benches.compare import latency
from benches.compare.peers import Peers
from benches.compare.result import Run, is_steady, now
from benches.compare.rows import Planned, Row
from multikernel.tools.bench.compare import Comparison, Contender, Effort, compare
from multikernel.tools.bench.sides import Cpus

TRIES = 3
"""A comparison during which the cpus moved apart, or together, is made again; so often at most."""

Tell = Callable[[str], object]


def run(name: str, row: Row, cpus: Cpus, effort: Effort, into: Run, tell: Tell) -> None:
    """Measure a row.

    Args:
        name: of the row.
        row: what is measured.
        cpus: of the two sides.
        effort: of each comparison.
        into: gets the results, what failed, and which peers were missing.
        tell: called with a line for people before each step, and for whatever is left out.
    """
    peers = Peers()
    planned = row.cases(peers)
    for peer in peers.missing.keys() - into.missing.keys():
        into.missing[peer] = peers.missing[peer]
        tell(f"{peer} is left out: {peers.missing[peer]}")
    for plan in planned:
        _run_case(name, plan, cpus, effort, into, tell)
    _run_found(name, row, cpus, effort, into, tell)
    _run_counts(name, row, cpus, effort, into, tell, peers)
    into.rows[name] = now()


def _run_case(name: str, plan: Planned, cpus: Cpus, effort: Effort, into: Run, tell: Tell) -> None:
    case = plan.case
    latencies: dict[str, Any] = {}
    for other in case.others:
        what = f"{case.work}, against {other.name}"
        tell(f"{name}: {what}")
        try:
            found = _compare(plan, other, cpus, effort)
            if plan.latency:
                for each in (case.ours, other):
                    if each.name not in latencies:
                        latencies[each.name] = latency.measure(each, cpus, effort)
        except Exception as error:  # noqa: BLE001 - anything may go wrong in a peer; it is named and not shown
            reason = f"{type(error).__name__}: {error}"
            into.failed.append({"row": name, "work": case.work, "against": other.name, "why": reason})
            tell(f"{name}: {what} is not shown: {reason}")
            continue
        shown = {who: latencies[who] for who in (case.ours.name, other.name) if latencies.get(who)}
        into.add(name, found, plan.goals.get(other.name), shown)


def _compare(plan: Planned, other: Contender, cpus: Cpus, effort: Effort) -> Comparison:
    found = compare(plan.case, other, cpus, effort)
    for _ in range(TRIES - 1):
        if is_steady(found):
            break
        found = compare(plan.case, other, cpus, effort)
    return found


def _run_found(name: str, row: Row, cpus: Cpus, effort: Effort, into: Run, tell: Tell) -> None:
    try:
        for found, goal in row.found(cpus, effort):
            tell(f"{name}: {found.work}, against {found.against}")
            into.add(name, found, goal, {})
    except Exception as error:  # noqa: BLE001 - likewise
        reason = f"{type(error).__name__}: {error}"
        into.failed.append({"row": name, "work": row.about, "against": "", "why": reason})
        tell(f"{name}: {row.about} is not shown: {reason}")


def _run_counts(name: str, row: Row, cpus: Cpus, effort: Effort, into: Run, tell: Tell, peers: Peers) -> None:
    counts = row.counts(cpus, effort, peers)
    try:
        for count in counts:
            tell(f"{name}: {count.work}, {count.what}")
            into.count(name, count)
    except Exception as error:  # noqa: BLE001 - likewise
        reason = f"{type(error).__name__}: {error}"
        into.failed.append({"row": name, "work": row.about, "against": "", "why": reason})
        tell(f"{name}: {row.about} is not shown: {reason}")
