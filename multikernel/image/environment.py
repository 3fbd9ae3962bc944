"""What an image takes from the environment: the modules that it imports and does not bring, each with its version.

Nothing is imported to find that out: versions are those that installers have written down beside the modules.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from .search import find

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from importlib.metadata import Distribution

UNKNOWN = "-"
"""Stands for the version of a module that nobody has given one: a file beside a script, say."""
MISSING = "missing"
"""Stands for the version of a module that is not there. Perhaps the image can do without it."""


def versions(names: Iterable[str], path: Sequence[str], *, search_hooks: bool) -> list[str]:
    """`names`, top-level modules, as "NAME VERSION", in order; before them the interpreter.

    Args:
        names: which.
        path: the import path.
        search_hooks: also ask the import hooks of this process.
    """
    found = [f"python {'.'.join(map(str, sys.version_info[:3]))}"]
    for name in sorted(names):
        spec = find(name, path, search_hooks=search_hooks)
        found.append(f"{name} {MISSING if spec is None else _version(name, spec, path)}")
    return found


def _version(name: str, spec: ModuleSpec, path: Sequence[str]) -> str:
    from importlib import metadata

    places = list(spec.submodule_search_locations or ()) or ([spec.origin] if spec.has_location and spec.origin else [])
    if not places:
        return UNKNOWN
    beside = [os.path.dirname(os.path.abspath(places[0]))]
    for candidates in (
        metadata.distributions(name=name, path=beside),
        (each for each in metadata.distributions(name=name, path=list(path)) if _is_editable(each)),
        (each for each in metadata.distributions(path=beside) if name in _modules(each)),
    ):
        for each in candidates:
            version = str(each.version or "")
            if version and version.isprintable() and not set(version) & {" ", ","}:
                return version
    return UNKNOWN


def _is_editable(distribution: Distribution) -> bool:
    """Whether its modules lie elsewhere: in a checkout that somebody works in."""
    try:
        source = json.loads(distribution.read_text("direct_url.json") or "{}")
        return bool(source["dir_info"]["editable"])
    except (ValueError, KeyError, TypeError):
        return False


def _modules(distribution: Distribution) -> set[str]:
    """The top-level modules that it has: by what it says, or by its files."""
    said = distribution.read_text("top_level.txt")
    return set(said.split()) if said else set(_tops(distribution))


def _tops(distribution: Distribution) -> Iterator[str]:
    for file in distribution.files or ():
        top = file.parts[0]
        if len(file.parts) > 1 or top.endswith((".py", ".so")):
            yield top.partition(".")[0]
