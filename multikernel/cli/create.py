"""`multikernel create`: reserve cpus and memory for a new instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import describe, foreign, options, output, plan

if TYPE_CHECKING:
    from multikernel.machine import Machine


@click.command(epilog="Example:  multikernel create web --cpus 1 --memory 64M")
@options.not_both("cpus", "cpu_count", "--cpus names the cpus, --cpu-count says how many: give one of them.")
@options.new_name
@click.option("--id", "number", type=click.IntRange(1, 511), metavar="N", help="Its id. Default: the lowest free.")
@options.cpus("Its cpus. Default: one that is free.")
@click.option("--cpu-count", type=click.IntRange(min=1), metavar="N", help="So many free cpus, whichever they are.")
@options.memory("Its memory.", default="64M")
@click.option("--shared", is_flag=True, help="Share its cpus with others that were created so.")
@options.restart
@options.watchdog
@options.on_hang
@click.option("--core", is_flag=True, help="Let the system write a core file of it; others of this user may look in.")
@options.machine
@options.dry_run
@options.as_json
@options.verbose
@foreign.options("create")
def create(
    machine: Machine,
    name: str,
    number: int | None,
    cpus: tuple[int, ...] | None,
    cpu_count: int | None,
    memory: int,
    shared: bool,
    restart: str,
    watchdog: float | None,
    on_hang: str,
    core: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make an instance.

    Its cpus and its memory are its own from now on, until it is deleted.
    """
    from multikernel.units import format_cpus, format_size

    if dry_run or cpu_count is not None:
        cpus = plan.cpus(machine, name, cpus, cpu_count or 1, memory, exclusive=not shared, number=number)
    if dry_run:
        document = plan.document(machine.name, name, cpus or (), memory, exclusive=not shared, number=number)
    else:
        instance = machine.create(
            name,
            cpus=cpus,
            memory=memory,
            exclusive=not shared,
            restart=restart,
            watchdog=watchdog,
            on_hang=on_hang,
            core=core,
            id=number,
        )
        document = describe.outcome(instance, dry_run=False)
    made = document["instance"]
    output.done(
        document,
        as_json,
        f"{'would create' if dry_run else 'created'} {name}: cpus {format_cpus(made['cpus'])}, "
        f"memory {format_size(made['memory'])}",
    )
