"""What the shell may complete: names of machines and instances, paths of the view.

Whatever goes wrong here, nothing is said: the shell is in the middle of somebody's line.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem


def machines(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's interface
    """Names of machines that run."""
    with contextlib.suppress(Exception):
        from multikernel import machines

        return [name for name in machines() if name.startswith(incomplete)]
    return []


def instances(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's interface
    """Names of instances of the machine that the line is about."""
    with contextlib.suppress(Exception):
        from multikernel import Machine

        with Machine.attach(ctx.params.get("machine_name")) as machine:
            return [name for name in machine if name.startswith(incomplete)]
    return []


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's interface
    """Files, by the shell itself."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def instance_then_file(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The name of an instance first, then a file."""
    from click.shell_completion import CompletionItem

    if not ctx.params.get("words") and ctx.params.get("number") is None:
        return [CompletionItem(name) for name in instances(ctx, param, incomplete)]
    return files(ctx, param, incomplete)


def paths(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's interface
    """Paths of the view, a directory at a time."""
    with contextlib.suppress(Exception):
        from multikernel import Machine

        with Machine.attach(ctx.params.get("machine_name")) as machine:
            directory, _, _ = incomplete.rpartition("/")
            found = [f"{directory}/{name}" if directory else name for name in machine.proc.ls(directory)]
            return [path for path in found if path.startswith(incomplete)]
    return []
