"""The top-level modules of an image that has several: which it has, and which it may not have."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from multikernel.errors import ImageError


def tops(files: Mapping[str, bytes]) -> set[str]:
    """The names under which files of `files` are imported.

    A directory without `__init__.py` counts if it has source; but not if the standard library has a module of that
    name, which goes before it then, as everywhere.
    """
    found = set()
    for name in files:
        if not name.endswith(".py"):
            continue
        top, slash, rest = name.partition("/")
        if not slash:
            found.add(top.removesuffix(".py"))
        elif rest == "__init__.py" or top not in sys.stdlib_module_names:
            found.add(top)
    return found - {"__main__"}


def check_tops(files: Mapping[str, bytes], name: str) -> None:
    """Refuse a module that would hide, in the instance, one that it already runs on. ImageError says which."""
    hidden = sorted(top for top in tops(files) if is_the_instances(top))
    if hidden:
        raise ImageError(
            f"cannot load {name!r}: in the instance it would hide the module {hidden[0]!r} that others import. "
            "Give it another name, or leave it out.",
            modules=tuple(hidden),
        )


def is_the_instances(top: str) -> bool:
    """Whether an instance runs on a module of that name, of which there must not be two."""
    return top == "multikernel" or top in sys.stdlib_module_names
