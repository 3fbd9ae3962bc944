"""Each option and argument of the command line, defined once; what a command needs of them is a decorator.

`machine` and `instance` give a command the thing itself, joined, and leave it again when the command is done.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import click

from . import complete, target

Command = Callable[..., Any]


def checked(convert: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A callback that makes a value of an option's text; a `ValueError` becomes a mistake in the command line."""

    def callback(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        try:
            return convert(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return callback


def _cpus(text: str) -> tuple[int, ...]:
    from multikernel.units import parse_cpus

    return parse_cpus(text)


def _size(text: str) -> int:
    from multikernel.units import parse_size

    return parse_size(text)


def _name(text: str) -> str:
    from multikernel.resources.names import check_name

    return check_name(text)


def _cmdline(text: str) -> str:
    from multikernel.image.cmdline import Params

    Params(text)
    return text


def _trusted(folder: str) -> tuple[str, int]:
    from multikernel.image.keys import read_folder

    return folder, len(read_folder(folder))


def _modules(text: str) -> list[str]:
    from multikernel.host import preload

    return preload.names(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{text!r} is not a number of seconds")
    return seconds


seconds = checked(_seconds)
"""The callback of an option that is a time."""


def cpus(help: str) -> Callable[[Command], Command]:  # noqa: A002 - it is the option's help
    """`-c/--cpus SPEC`."""
    return click.option("-c", "--cpus", callback=checked(_cpus), metavar="SPEC", help=help)


def memory(help: str, default: str | None = None) -> Callable[[Command], Command]:  # noqa: A002 - likewise
    """`-m/--memory SIZE`."""
    shown = default is not None
    return click.option(
        "-m", "--memory", callback=checked(_size), metavar="SIZE", default=default, show_default=shown, help=help
    )


def timeout(help: str, default: str = "30") -> Callable[[Command], Command]:  # noqa: A002 - likewise
    """`--timeout SECONDS`."""
    return click.option("--timeout", callback=seconds, metavar="SECONDS", default=default, show_default=True, help=help)


restart = click.option(
    "--restart",
    type=click.Choice(["never", "on-failure", "always"]),
    default="never",
    show_default=True,
    help="When to boot it again after it has ended by itself.",
)

watchdog = click.option(
    "--watchdog",
    callback=seconds,
    metavar="SECONDS",
    help="Without a sign of life for so long, it is hung. Default: nobody looks.",
)

on_hang = click.option(
    "--on-hang",
    type=click.Choice(["report", "dump", "reboot"]),
    default="report",
    show_default=True,
    help="What to do then: say so, kill it and keep a report, or boot it again, too.",
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")

dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do not do it.")

verbose = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=lambda ctx, _, on: _be_verbose(ctx, on),
    help="Say more about what is done, on stderr.",
)


def cmdline(*flags: str) -> Callable[[Command], Command]:
    """`--cmdline TEXT`, and `flags` for it: `-c` is the command line to some verbs, the cpus to others."""
    return click.option(
        *flags,
        "--cmdline",
        callback=checked(_cmdline),
        default="",
        metavar="TEXT",
        help="What the instance finds as its kernel.cmdline, and in parts as its kernel.params.",
    )


def initrd(*flags: str) -> Callable[[Command], Command]:
    """`--initrd PATH`, and `flags` for it."""
    return click.option(
        *flags,
        "--initrd",
        metavar="PATH",
        shell_complete=complete.files,
        help="A file, or a directory, whose data the instance finds as its kernel.initrd.",
    )


detach = click.option("-d", "--detach", is_flag=True, help="Return when it is active, and let it run on.")

until = click.option(
    "--until",
    type=click.Choice(["active", "ready"]),
    default="active",
    show_default=True,
    help="How far it must have come: its main entered, or its first wait reached.",
)

machine_name = click.option(
    "-M",
    "--machine",
    "machine_name",
    callback=checked(_name),
    metavar="NAME",
    envvar="MULTIKERNEL_MACHINE",
    show_envvar=True,
    shell_complete=complete.machines,
    help="The machine; without it the only one that runs, else `default`.",
)

new_machine = click.option(
    "-M",
    "--machine",
    "machine_name",
    callback=checked(_name),
    metavar="NAME",
    envvar="MULTIKERNEL_MACHINE",
    show_envvar=True,
    default="default",
    show_default=True,
    help="What the machine is called.",
)

trusted = click.option(
    "--verify",
    callback=checked(_trusted),
    metavar="FOLDER",
    help="Load only images that are signed by one of the Ed25519 public keys (*.pub, *.pem) in FOLDER.",
)

preload = click.option(
    "--preload",
    callback=checked(_modules),
    metavar="MODULES",
    help="What every instance has imported already when it boots: numpy,json.",
)

instance_id = click.option("--id", "number", type=click.IntRange(1, 511), metavar="N", help="The instance, by its id.")

instance_name = click.argument("name", required=False, shell_complete=complete.instances)

new_name = click.argument("name", callback=checked(_name))


def not_both(first: str, second: str, why: str) -> Callable[[Command], Command]:
    """Refuse a command line that gives two options that exclude each other; before anything is joined or done.

    Args:
        first: one option, as the command's parameter.
        second: the other.
        why: what the person is told.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def checked_first(*args: Any, **options: Any) -> Any:
            if options[first] not in (None, False) and options[second] not in (None, False):
                raise click.UsageError(why)
            return command(*args, **options)

        return checked_first

    return decorate


def machine(command: Command) -> Command:
    """`-M/--machine NAME`; the command gets `machine`, joined."""

    @machine_name
    @functools.wraps(command)
    def joined(*args: Any, machine_name: str | None, **rest: Any) -> Any:
        with target.machine(machine_name) as it:
            return command(*args, machine=it, **rest)

    return joined


def instance(command: Command) -> Command:
    """`NAME` or `--id N`, and `-M`; the command gets `instance`, of a machine that is joined."""

    @instance_name
    @instance_id
    @machine_name
    @functools.wraps(command)
    def found(*args: Any, machine_name: str | None, name: str | None, number: int | None, **rest: Any) -> Any:
        target.check(name, number)
        with target.machine(machine_name) as it:
            return command(*args, instance=target.instance(it, name, number), **rest)

    return found


def instances(command: Command) -> Command:
    """`NAME...`, `--id N` or `--all`, and `-M`; the command gets `instances`, a list, of a machine that is joined."""

    @click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete.instances)
    @click.option("--all", "every", is_flag=True, help="All that have an image and do not run.")
    @instance_id
    @machine_name
    @functools.wraps(command)
    def found(
        *args: Any, machine_name: str | None, names: tuple[str, ...], every: bool, number: int | None, **rest: Any
    ) -> Any:
        if every and (names or number is not None):
            raise click.UsageError("--all is all of them: give no NAME, and no --id.")
        if number is not None and len(names) > 1:
            raise click.UsageError("--id is one instance, and these are several: give one or the other.")
        if not every:
            target.check(names[0] if names else None, number)
        with target.machine(machine_name) as it:
            if every:
                chosen = [each for each in map(it.__getitem__, it) if each.state in ("loaded", "failed")]
            elif len(names) > 1:
                chosen = [it[name] for name in dict.fromkeys(names)]
            else:
                chosen = [target.instance(it, names[0] if names else None, number)]
            return command(*args, instances=chosen, **rest)

    return found


def _be_verbose(ctx: click.Context, on: bool) -> None:
    if on:
        ctx.find_root().ensure_object(dict)["verbose"] = True
