"""`multikernel exec`: run a command inside an instance; without a command, boot it, as kerf 0.1 did."""

from __future__ import annotations

import click

from . import foreign, options, output, target
from .start import Until, boot_instance, console_option, one_document, timeout_option


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{text!r} is no assignment: write NAME=VALUE")
    return name, value


def _environment(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    try:
        return dict(map(_assignment, values))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(
    "exec",
    epilog="\b\nExample:\n  multikernel exec web -- perf stat -a sleep 1\n  multikernel exec web",
)
@one_document
@click.argument("words", nargs=-1, metavar="[NAME] [-- COMMAND...]")
@options.instance_id
@options.machine_name
@click.option(
    "-e",
    "--env",
    "environment",
    multiple=True,
    callback=_environment,
    metavar="NAME=VALUE",
    help="Of the command's environment.",
)
@click.option(
    "-w", "--workdir", type=click.Path(exists=True, file_okay=False), metavar="DIR", help="Where the command runs."
)
@click.option("-i", "--interactive", is_flag=True, hidden=True, expose_value=False)  # kerf's; it always is
@click.option("-t", "--tty", is_flag=True, hidden=True, expose_value=False)  # likewise: the caller's own
@options.until
@timeout_option
@console_option
@options.dry_run
@options.as_json
@options.verbose
@foreign.options("exec")
def execute(
    words: tuple[str, ...],
    number: int | None,
    machine_name: str | None,
    environment: dict[str, str],
    workdir: str | None,
    until: Until,
    timeout: float,
    console: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a command on an instance's cpus.

    COMMAND has this terminal, its signals, and MULTIKERNEL_MACHINE and MULTIKERNEL_INSTANCE in its environment; it is
    killed when the instance ends. Exit status: its own, 128 and the number of the signal that ended it, 127 if there is
    no such command, 126 if it cannot be run. Without a COMMAND it boots the instance, as start does.
    """
    named = 1 if number is None else 0
    name, command = words[0] if words[:named] else None, words[named:]
    if command and (console or as_json):
        raise click.UsageError("--console and --json are for a boot: what COMMAND prints is its own.")
    target.check(name, number)
    with target.machine(machine_name) as machine:
        instance = target.instance(machine, name, number)
        if not command:
            boot_instance(instance, until, timeout, console=console, dry_run=dry_run, as_json=as_json)
            return
        target.check_active(instance, "run a command in")
        if dry_run:
            output.talk(f"would run {command[0]} on cpus {', '.join(map(str, instance.cpus))}")
            return
        from multikernel.tools import inside

        try:
            status, killed = inside.run(instance, command, environment, workdir)
        except inside.NotStarted as error:
            output.talk(f"multikernel exec: {error}")
            click.get_current_context().exit(error.status)
        if killed:
            output.talk(f"{instance.name} has ended, and {command[0]} was killed with it")
    click.get_current_context().exit(status)
