"""The command line: click commands, one file a command or a small group, without logic of their own.

Nothing but `main` is here, and it imports the rest when it is called.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `multikernel ARGUMENTS` (default: those of this process).

    Returns:
        Its exit status: 0 done, 1 failed, 2 usage, 3 not running, 4 no such machine or instance, 5 resources not
        available, 6 image refused, 7 timed out, 77 this system lacks it, 130 Ctrl-C; `run` gives the instance's own.
    """
    try:
        from .group import run

        return run(arguments)
    except KeyboardInterrupt:  # before there was a command, or while its end was told
        return 130
