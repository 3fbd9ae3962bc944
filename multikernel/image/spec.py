"""From what a user writes to an image: `server.py:main`, `pkg.module:main`, `app.pyz`, `./app`, or a function."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any

from multikernel.errors import ImageError

from . import folder, module, native, pyz, script

if TYPE_CHECKING:
    from .found import Found
    from .image import Image

DEFAULT_ENTRY = "main"
FORMS = "FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION, FILE.pyz, or a path of a directory or a program"


def read(spec: str | Callable[..., Any], *, directory: str | None = None, path: Sequence[str] | None = None) -> Image:
    """Read an image and seal it. Nothing of it is imported or run.

    Args:
        spec: "FILE.py:FUNCTION", "PACKAGE.MODULE:FUNCTION", "FILE.pyz:FUNCTION" or "./DIRECTORY:FUNCTION", of which the
            last two have it in `__main__.py` (without a function: main); "./PROGRAM", an ELF executable, by a path with
            a "/"; or a function that a module has at its top level or in a class: then the module is read anew from its
            file, without what the running program has made of it.
        directory: what relative paths start from. None: the working directory.
        path: the import path, to find modules now and in the instance. None: `sys.path`.

    Raises:
        ImageError: there is no such image, or it cannot be one; with what was asked, what is there, what to do.
        TypeError: the spec is neither text nor callable.
        OSError: there is not enough memory for the sealed copy.
    """
    directory = os.path.abspath(directory) if directory is not None else os.getcwd()
    entries = sys.path if path is None else path
    absolute = list(dict.fromkeys(os.path.normpath(os.path.join(directory, entry)) for entry in entries))
    if isinstance(spec, str):
        if native.detect(spec, directory):
            return native.load(spec, name=spec, directory=directory)
        target, entry = _split(spec)
        if _is_path(target):
            return _at(os.path.normpath(os.path.join(directory, target)), entry, spec, absolute).seal(
                search_hooks=path is None
            )
        found = module.load(target, entry, name=spec, path=absolute, search_hooks=path is None)
        return found.seal(search_hooks=path is None)
    if not callable(spec):
        raise TypeError(f'an image is text such as "server.py:main", or a function, not {type(spec).__name__}')
    return _find_function(spec, absolute, search_hooks=path is None).seal(search_hooks=path is None)


def _is_path(target: str) -> bool:
    """Whether `target` names a file or a directory, and not a module: it looks like a path, or ends as one does."""
    return target.endswith((".py", pyz.SUFFIX)) or "/" in target or target in (".", "..")


def _at(origin: str, entry: str, name: str, path: list[str]) -> Found:
    """What is at the path `origin`."""
    if os.path.isdir(origin):
        return folder.load(origin, entry, name=name, path=path)
    if origin.endswith(pyz.SUFFIX):
        return pyz.load(origin, entry, name=name, path=path)
    return script.load(origin, entry, name=name, path=path)


def _split(spec: str) -> tuple[str, str]:
    """What to load and the function to enter."""
    head, colon, tail = spec.rpartition(":")
    target, entry = (head, tail) if colon else (spec, DEFAULT_ENTRY)
    if not _is_path(target) and not _is_dotted(target):
        raise ImageError(f"{spec!r} is no image: write {FORMS}.", spec=spec)
    if not _is_dotted(entry):
        raise ImageError(f"{entry!r} in {spec!r} cannot be a function's name: write FILE.py:FUNCTION.", spec=spec)
    if "\0" in spec:
        raise ImageError(f"{spec!r} is no image: a path has no NUL characters.", spec=spec)
    return target, entry


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _find_function(function: Callable[..., Any], path: list[str], *, search_hooks: bool) -> Found:
    reason = _why_not(function)
    if reason:
        raise ImageError(
            f"cannot load {function!r}: {reason}. An instance imports the function by its name: "
            "load one that stands at the top level of a module."
        )
    module_name, entry = function.__module__, function.__qualname__
    holder = sys.modules[module_name]
    if module_name in ("__main__", "__mp_main__") and holder.__spec__ is not None:  # python -m pkg.module
        module_name = holder.__spec__.name
    file = getattr(holder, "__file__", None)
    if not file or not os.path.isfile(file):
        raise ImageError(
            f"cannot load {entry!r} of {module_name!r}: what was typed in, or given with -c, has no file to load from. "
            "Write it into one."
        )
    if module.leads_to(module_name, file, path, search_hooks=search_hooks):
        return module.load(module_name, entry, name=f"{module_name}:{entry}", path=path, search_hooks=search_hooks)
    # A program's own file; or imported by its file and not by its name, as test runners do.
    name = f"{os.path.basename(file)}:{entry}"
    return script.load(os.path.abspath(file), entry, name=name, path=path)


def _why_not(function: Callable[..., Any]) -> str | None:
    """Why another process could not find `function` by its name, or None."""
    if not isinstance(function, FunctionType):
        return f"it is a {type(function).__name__}, not a function written in Python"
    if function.__name__ == "<lambda>":
        return "a lambda has no name"
    if "<locals>" in function.__qualname__:
        return "it is made inside of another function"
    found: object = sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is not function:
        return f"{function.__module__}.{function.__qualname__} is something else"
    return None
