"""`multikernel completion`: what makes a shell complete this command line."""

from __future__ import annotations

import click

from . import output

SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog="\b\nExample:\n"
    "  bash:  multikernel completion bash > ~/.local/share/bash-completion/completions/multikernel\n"
    "  zsh:   multikernel completion zsh > ~/.zfunc/_multikernel\n"
    "  fish:  multikernel completion fish > ~/.config/fish/completions/multikernel.fish"
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
def completion(shell: str, as_json: bool) -> None:
    """Print a shell's completion script.

    By it SHELL completes commands, options, and names of machines and instances.
    """
    from click.shell_completion import get_completion_class

    from .group import COMPLETE, PROGRAM, group

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click has no completion for {shell}.")
    script = kind(group, {}, PROGRAM, COMPLETE).source().rstrip() + "\n"
    if as_json:
        output.document({"shell": shell, "script": script})
    else:
        click.echo(script, nl=False)
