"""Images of a module: `pkg.module:main`. The whole top-level package is read, or the module that is a single file.

It is found on the import path, but not imported: a load runs none of its code. Extension modules stay out, and are
loaded from the environment: the system's loader wants a file. So do caches and hidden files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.machinery import ModuleSpec

from multikernel.errors import ImageError

from . import archive
from .files import read_one, read_tree
from .found import Found
from .image import MAX_IMAGE
from .search import find


def load(target: str, entry: str, *, name: str, path: list[str], search_hooks: bool) -> Found:
    """Read the module `target`, or the whole of the package that it lies in.

    Args:
        target: the module's dotted name.
        entry: the function.
        name: what is shown.
        path: the import path.
        search_hooks: also ask the import hooks of this process, which editable installs use.

    Raises:
        ImageError: it is not found, not source, cannot be read, is too large, or changed while it was read.
    """
    top = target.partition(".")[0]
    spec = find(top, path, search_hooks=search_hooks)
    if spec is None:
        raise ImageError(
            f"cannot load {name!r}: there is no module {top!r} on the import path ({_some(path)}). "
            "Write PACKAGE.MODULE:FUNCTION, or FILE.py:FUNCTION for a script.",
            module=target,
        )
    if spec.submodule_search_locations is not None:
        locations = [os.path.abspath(each) for each in spec.submodule_search_locations]
        files = _package(top, locations, name)
        origin = locations[0]
    else:
        origin = _source_of(spec, name)
        files = {f"{top}.py": read_one(origin, name)}
    _check_contains(files, target, name)
    return Found("module", name, entry, target, origin, path, archive.pack(files), files)


def leads_to(target: str, file: str, path: Sequence[str], *, search_hooks: bool) -> bool:
    """Whether importing the module `target` would read `file`."""
    top, _, rest = target.partition(".")
    spec = find(top, path, search_hooks=search_hooks)
    if spec is None:
        return False
    base = rest.replace(".", "/")
    candidates = [spec.origin] if not rest else []
    for location in spec.submodule_search_locations or () if rest else ():
        candidates += [os.path.join(location, f"{base}.py"), os.path.join(location, base, "__init__.py")]
    return any(each and os.path.exists(each) and os.path.samefile(each, file) for each in candidates)


def _source_of(spec: ModuleSpec, name: str) -> str:
    if not spec.has_location or not spec.origin or not spec.origin.endswith(".py"):
        raise ImageError(
            f"cannot load {name!r}: the module {spec.name!r} ({spec.origin}) is not Python source, "
            "and an image is. Load a module of your own that imports it.",
            module=spec.name,
        )
    return os.path.abspath(spec.origin)


def _package(top: str, locations: Sequence[str], name: str) -> dict[str, bytes]:
    """All files of the package; of a namespace package with portions in several places, the first has a name."""
    files: dict[str, bytes] = {}
    for location in locations:
        left = MAX_IMAGE - sum(map(len, files.values()))
        files = read_tree(location, f"{top}/", name, left) | files
    return files


def _check_contains(files: dict[str, bytes], module: str, name: str) -> None:
    """The module to enter must be among the files, as source."""
    base = module.replace(".", "/")
    if f"{base}.py" in files or f"{base}/__init__.py" in files:
        return
    if any(each.startswith(f"{base}/") for each in files):
        raise ImageError(
            f"cannot load {name!r}: {module!r} is a directory without __init__.py. If the directory itself is meant, "
            f"write ./{base}.",
            module=module,
        )
    parent = base.rpartition("/")[0]
    there = sorted(
        each.removeprefix(f"{parent}/").removesuffix(".py")
        for each in files
        if each.startswith(f"{parent}/") and each.endswith(".py") and "/" not in each.removeprefix(f"{parent}/")
    )
    raise ImageError(
        f"cannot load {name!r}: there is no source of a module {module!r}; {parent.replace('/', '.')!r} has "
        f"{_some([each for each in there if each != '__init__']) or 'none'}.",
        module=module,
    )


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:8]) + (", ..." if len(texts) > 8 else "")
