"""The demo: two instances on cores of their own count what is in every Python file of a directory.

`reader` reads and adds up, `parser` parses; they talk directly, and the program only looks on.
"""

from __future__ import annotations


def run(input: str | None, cpus: str | None, as_json: bool) -> int:  # noqa: A002 - the option's name
    """Run the demo, and print what came out; talk and progress go to stderr.

    Args:
        input: a directory; every `*.py` below it is parsed. None: the interpreter's standard library.
        cpus: of the two instances, such as "0-1"; one is shared. None: the first two that this process may use.
        as_json: print one JSON document.

    Returns:
        The exit status: 1 if a plain process counts anything else than the instances did.

    Raises:
        ResourceError, ValueError: cpus that are not to be had, or more than two.
        OSError: the directory cannot be read.
        MultikernelError: an instance ended in the middle of the work. Nothing is left of the machine.
    """
    from . import program  # the images import this package too, and nothing of the program

    return program.run(input, cpus, as_json=as_json)
