"""`multikernel show`: the machine and its instances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from multikernel.tools.terminal import plain

from . import complete, describe, options, output

if TYPE_CHECKING:
    from multikernel.machine import Machine


_SHOWN_DIGEST = 12  # characters of a digest that tell images apart; --json has all


@click.command(epilog="\b\nExample:\n  multikernel show web\n  multikernel show --images")
@click.argument("name", required=False, shell_complete=complete.instances)
@options.machine
@options.as_json
@click.option("-v", "--verbose", is_flag=True, help="With NAME: what it says of itself, too.")
@click.option("--panic", is_flag=True, help="With NAME: the report of its last incarnation that died by itself.")
@click.option("--images", is_flag=True, help="The images that are loaded, and what they import.")
@options.not_both("name", "images", "--images shows those of the machine: leave NAME out.")
def show(machine: Machine, name: str | None, as_json: bool, verbose: bool, panic: bool, images: bool) -> None:
    """Show the machine and its instances.

    With NAME: that instance, in detail.
    """
    about = describe.machine(machine)
    if panic:
        _show_panic(machine, name, about, as_json=as_json)
        return
    if images:
        _show_images(machine, about, as_json=as_json)
        return
    if name is not None:
        one = describe.instance(machine[name])
        if as_json:
            output.document({**about, "instance": one})
        else:
            output.pairs(_detail(one))
            if verbose:
                click.echo(f"\n{machine.proc[f'instances/{name}/status']}", nl=False)
        return
    every, notes = describe.instances(machine), describe.shared_cpus(machine)
    if as_json:
        output.document({**about, "instances": every, "notes": notes})
        return
    click.echo(_summary(about))
    if every:
        click.echo()
        output.table(("NAME", "ID", "STATE", "PID", "EPOCH", "CPUS", "MEMORY", "IMAGE"), [_row(each) for each in every])
    else:
        output.talk("no instances; `multikernel create NAME` makes one")
    for note in notes:
        output.talk(f"note: {note}")


def _show_panic(machine: Machine, name: str | None, about: dict[str, Any], *, as_json: bool) -> None:
    if name is None:
        raise click.UsageError("whose panic report? Give the NAME of an instance.")
    panic = machine[name].panic
    if as_json:
        output.document({**about, "panic": panic.to_json() if panic else None})
    elif panic is None:
        output.talk(f"{name} has not died by itself")
    else:
        for line in panic.text().splitlines():
            click.echo(plain(line))


def _show_images(machine: Machine, about: dict[str, Any], *, as_json: bool) -> None:
    from multikernel.units import format_size

    images = machine.proc.snapshot("kimages")
    if as_json:
        output.document({**about, "images": images})
        return
    if not images:
        output.talk("no images; `multikernel load NAME IMAGE` loads one")
        return
    rows = [
        (
            str(each["id"]),
            each["kind"],
            format_size(each["size"]),
            each["digest"][:_SHOWN_DIGEST],
            each["signature"],
            ", ".join(each["instances"]),
            ", ".join(each["running"]) or "-",
            each["name"],
            ", ".join(f"{one['name']} {one['version']}" for one in each["imports"]),
        )
        for each in images
    ]
    headers = ("ID", "KIND", "SIZE", "DIGEST", "SIGNATURE", "LOADED BY", "RUN BY", "NAME", "IMPORTS")
    output.table(headers, rows)


def _summary(about: dict[str, Any]) -> str:
    from multikernel.units import format_cpus, format_size

    pool, keys = about["pool"], about["trusted_keys"]
    signed = f"; signed images only, by {keys} key{'' if keys == 1 else 's'}" if keys else ""
    kind = "persistent" if about["host"]["persistent"] else "ephemeral"
    return (
        f"{plain(about['machine'])}: {kind}, host pid {about['host']['pid']}; "
        f"cpus {format_cpus(pool['cpus'])}, free {format_cpus(pool['cpus_free'])}; "
        f"memory {format_size(pool['memory'])}, free {format_size(pool['memory_free'])}{signed}"
    )


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    from multikernel.units import format_cpus, format_size

    return (
        each["name"],
        str(each["id"]),
        each["state"],
        str(each["pid"] or "-"),
        str(each["epoch"]),
        format_cpus(each["cpus"]),
        format_size(each["memory"]),
        each["image"]["name"] if each["image"] else "-",
    )


def _detail(one: dict[str, Any]) -> list[tuple[str, str]]:
    from multikernel.shm.records import End
    from multikernel.units import format_cpus, format_size

    image, last = one["image"], one["last_end"]
    lines = [
        ("name", one["name"]),
        ("id", str(one["id"])),
        ("state", one["state"]),
        ("pid", str(one["pid"] or "-")),
        ("epoch", str(one["epoch"])),
        ("cpus", f"{format_cpus(one['cpus'])}{'' if one['exclusive'] else ' (shared)'}"),
        ("memory", format_size(one["memory"])),
        ("image", f"{image['name']} ({image['kind']}, {format_size(image['size'])})" if image else "-"),
        ("digest", image["digest"] if image else "-"),
        ("signature", image["signature"] if image else "-"),
        ("cmdline", one["cmdline"] or "-"),
        ("restart", f"{one['restart']}, {one['restarts']} in a row" if one["restarts"] else one["restart"]),
    ]
    if last is None:
        return [*lines, ("last end", "none yet")]
    ended = [("last end", describe.end_text(End(**last)))]
    return [*lines, *ended, *([("traceback", last["traceback"])] if last["traceback"] else [])]
