"""`multikernel doctor`: what this system has of what the library can use."""

from __future__ import annotations

import click

from . import options, output

_LACKS_NEEDED = 77


@click.command(epilog="Example:  multikernel doctor --json")
@options.as_json
@options.verbose
def doctor(as_json: bool) -> None:
    """Say what this system has and lacks.

    Each facility that the library uses is tried by making the call, in a process of its own; nothing is inferred from
    a version, and nothing is left behind. What a lack costs is said. Exit status 77 if something is missing that the
    library cannot do without.
    """
    from multikernel.tools import doctor as tool

    report = tool.examine(started=lambda name: output.detail(f"trying {name}"))
    if as_json:
        output.document(report.document())
    else:
        output.table(
            ("FACILITY", "STATUS", "WHAT IT ANSWERED"),
            [(found.name, found.status.value, f"{found.tried}: {found.answer}") for found in report.findings],
        )
        for found in report.findings:
            if found.cost:
                click.echo(f"\n{found.name} is {found.status.value}{', and needed' if found.needed else ''}")
                output.pairs([("costs", found.cost), ("to do", found.remedy)])
        output.talk("")
        output.talk(_verdict([found.name for found in report.missing]))
    click.get_current_context().exit(0 if report.ok else _LACKS_NEEDED)


def _verdict(missing: list[str]) -> str:
    if missing:
        return f"multikernel cannot work here: {', '.join(missing)} missing."
    return "multikernel works here."
