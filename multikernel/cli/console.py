"""`multikernel console`: what an instance has printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import attach as attaching
from . import describe, options, output, target
from .follow import LEVELS, Follower, Shown

if TYPE_CHECKING:
    from multikernel.machine import Instance


def _level(text: str) -> int:
    if text in LEVELS:
        return LEVELS.index(text)
    if text.isascii() and text.isdigit() and int(text) < len(LEVELS):
        return int(text)
    raise ValueError(f"{text!r} is no level: there are {', '.join(LEVELS)}, or 0 to {len(LEVELS) - 1}")


@click.command(epilog="Example:  multikernel console web --follow --level warning")
@options.not_both("follow", "as_json", "--json prints one document, which --follow would never end.")
@options.not_both("attach", "as_json", "--json prints one document, and takes no input.")
@options.instance
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added, until the instance ends.")
@click.option("-a", "--attach", is_flag=True, help="Follow it, and have it read what is typed here.")
@click.option(
    "-l",
    "--level",
    callback=options.checked(_level),
    metavar="LEVEL",
    default="debug",
    help="Only lines of this of syslog's levels and more urgent ones, as a name or number; printed ones are info.",
)
@click.option("-t", "--time", "times", is_flag=True, help="Write before each line when it was printed.")
@options.as_json
@options.verbose
def console(instance: Instance, follow: bool, attach: bool, level: int, times: bool, as_json: bool) -> None:
    """Print what an instance has printed.

    The console of its newest incarnation: the last 64 KiB, also when that has ended. With --follow the exit status is
    the instance's own, and Ctrl-C leaves it running; what it prints faster than is read is lost, which is said. With
    --attach what is typed is its standard input, a line at a time; one at a time can.
    """
    shown = Shown(level, times=times)
    if attach:
        target.check_active(instance, "attach to")
    if (follow or attach) and instance.pid:
        follower = Follower(instance, lambda text: click.echo(text, nl=False), shown)
        end = attaching.until_end(instance, follower) if attach else follower.until_end()
        click.get_current_context().exit(describe.exit_status(end))
    printed = instance.machine.proc.snapshot(f"instances/{instance.name}/console")
    if as_json:
        lines = [line for line in printed["lines"] if line["level"] <= level]
        document = {"lines": lines, "unread": shown.unread(printed["unread"])}
        output.document({"machine": instance.machine.name, "instance": instance.name, **document})
        return
    from multikernel.shm.pages import Line

    click.echo(shown.text(Line(**line) for line in printed["lines"]) + shown.unread(printed["unread"]), nl=False)
