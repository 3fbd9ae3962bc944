"""`multikernel ls` and `cat`: the view of the machine, as a tree of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from multikernel.tools.terminal import plain

from . import complete, options, output

if TYPE_CHECKING:
    from multikernel.machine import Machine


@click.command(epilog="Example:  multikernel ls instances/web")
@click.argument("path", default="", shell_complete=complete.paths)
@options.machine
@options.as_json
@options.verbose
def ls(machine: Machine, path: str, as_json: bool) -> None:
    """List files of the machine's view.

    Those at PATH, directories with a slash; without PATH those at the top.
    """
    proc = machine.proc
    names = [path] if path in proc else proc.ls(path)
    if as_json:
        entries = [{"name": name.rstrip("/"), "kind": "directory" if name.endswith("/") else "file"} for name in names]
        output.document({"machine": machine.name, "path": path, "entries": entries})
        return
    for name in names:
        click.echo(plain(name))


@click.command(epilog="Example:  multikernel cat meminfo instances/web/status")
@click.argument("path", nargs=-1, required=True, shell_complete=complete.paths)
@options.machine
@options.as_json
@options.verbose
def cat(machine: Machine, path: tuple[str, ...], as_json: bool) -> None:
    """Print files of the machine's view.

    With --json their values, as plain data; a PATH may be a directory then.
    """
    proc = machine.proc
    if as_json:
        output.document({"machine": machine.name, "files": {each: proc.snapshot(each) for each in path}})
        return
    for text in [proc[each] for each in path]:
        click.echo(text, nl=False)
