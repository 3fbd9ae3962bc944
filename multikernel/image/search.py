"""Where a module is, without importing it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder


def find(top: str, path: Sequence[str], *, search_hooks: bool) -> ModuleSpec | None:
    """The top-level module `top`, on the import path `path`.

    Args:
        top: its name.
        path: the import path.
        search_hooks: also ask the import hooks of this process, which editable installs use.
    """
    sys.path_importer_cache.clear()  # what was written a moment ago is meant
    spec = PathFinder.find_spec(top, path)
    if spec is None and search_hooks:
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):  # a module that somebody made by hand has no spec
            return None
    return spec
