"""`multikernel dump`: write what is left of an instance that died by itself."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import click

from . import complete, options, output

if TYPE_CHECKING:
    from multikernel.kernel.panic import Panic
    from multikernel.machine import Instance


@click.command(epilog="Example:  multikernel dump web --core -o web.panic")
@options.instance
@click.option("--core", is_flag=True, help="Its panic report; what else `dump` writes elsewhere is not there yet.")
@click.option(
    "-o", "--output", "path", metavar="FILE", shell_complete=complete.files, help="Where to. Default: stdout."
)
@options.as_json
@options.verbose
def dump(instance: Instance, core: bool, path: str | None, as_json: bool) -> None:
    """Write the panic report of an instance.

    Of the last incarnation that died by itself: why, what its threads did, what it printed and had not dealt with. Of
    an instance made with `create --core` FILE.core is its core file, if the system has written one.
    """
    from multikernel.errors import NotFound

    if not core:
        raise click.UsageError("--core writes the panic report; the device tree cannot be written yet.")
    panic = instance.panic
    if panic is None:
        raise NotFound(f"{instance.name!r} has no panic report: it has not died by itself.", name=instance.name)
    content = json.dumps(panic.to_json(), indent=2) + "\n" if as_json else panic.text()
    if path in (None, "-"):
        sys.stdout.write(content)
        return
    with open(path or "", "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(content)
    output.talk(f"wrote the panic report of {instance.name} (epoch {panic.epoch}) to {path}")
    output.talk(f"core file: {_copied(panic, f'{path}.core')}")


def _copied(panic: Panic, target: str) -> str:
    """Copy the core file beside the report, if there is one; what became of it."""
    if not panic.core_file:
        return panic.core
    shutil.copyfile(panic.core_file, target)
    return target
