"""`multikernel init`: make a machine that stays."""

from __future__ import annotations

from typing import Any

import click

from . import describe, foreign, options, output, plan


@click.command(epilog="\b\nExample:\n  multikernel init --cpus 0-3 --memory 1G\n  multikernel init --verify trusted")
@options.cpus("The pool's cpus. Default: all that this process may use.")
@options.memory("The pool's memory. Default: what is available.")
@options.new_machine
@options.trusted
@options.preload
@options.dry_run
@click.option("--report", is_flag=True, help="Print what the pool holds, and how the cpus lie.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Of the report."
)
@options.as_json
@options.verbose
@foreign.options("init")
def init(
    cpus: tuple[int, ...] | None,
    memory: int | None,
    machine_name: str,
    verify: tuple[str, int] | None,
    preload: list[str] | None,
    dry_run: bool,
    report: bool,
    form: str,
    as_json: bool,
) -> None:
    """Make a machine that stays.

    It has a pool of cpus and memory for instances, and stays until `multikernel shutdown`. Should its host process be
    killed, another takes over, and the instances go on.
    """
    as_json = as_json or (report and form == "json")
    if dry_run:
        made = plan.machine(machine_name, cpus, memory, trusted=verify[1] if verify else 0)
    else:
        made = _make(machine_name, cpus, memory, verify[0] if verify else None, preload or [])
    made |= {"dry_run": dry_run}
    if report:
        made |= {"topology": _topology()}
    output.done(made, as_json, _text(made))
    if report and not as_json:
        output.pairs(_report(made))


def _make(
    name: str, cpus: tuple[int, ...] | None, memory: int | None, verify: str | None, preload: list[str]
) -> dict[str, Any]:
    from multikernel import Machine

    with (
        output.patience(f"starting the host of {name}"),
        Machine(cpus, memory, name, persist=True, verify=verify, preload=preload) as machine,
    ):
        return describe.machine(machine)


def _topology() -> dict[str, Any]:
    """How the cpus of this system hang together."""
    from multikernel.resources.topology import Topology

    found = Topology.read()
    return {
        "model": found.model,
        "packages": {str(number): list(cpus) for number, cpus in found.packages.items()},
        "cores": [list(cpus) for cpus in found.cores],
        "nodes": {str(number): list(cpus) for number, cpus in found.nodes.items()},
    }


def _text(made: dict[str, Any]) -> str:
    from multikernel.units import format_cpus, format_size

    pool = made["pool"]
    return (
        f"{'would make' if made['dry_run'] else 'made'} machine {made['machine']}: "
        f"cpus {format_cpus(pool['cpus'])}, memory {format_size(pool['memory'])}"
    )


def _report(made: dict[str, Any]) -> list[tuple[str, str]]:
    from multikernel.units import format_cpus, format_size

    pool, topology = made["pool"], made["topology"]
    siblings = [format_cpus(core) for core in topology["cores"] if len(core) > 1]
    return [
        ("machine", made["machine"]),
        ("cpus", format_cpus(pool["cpus"])),
        ("memory", format_size(pool["memory"])),
        ("processor", topology["model"]),
        *((f"package {number}", format_cpus(cpus)) for number, cpus in topology["packages"].items()),
        *((f"node {number}", format_cpus(cpus)) for number, cpus in topology["nodes"].items()),
        ("siblings", ", ".join(siblings) or "none: each cpu is a core"),
    ]
