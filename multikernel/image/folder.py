"""Images of a directory that has a `__main__.py`: `app/`, as `python app/` runs one.

All of it is the image, but for caches, hidden files and extension modules, which stay in the environment.
"""

from __future__ import annotations

import os

from multikernel.errors import ImageError

from . import archive
from .files import read_tree
from .found import Found
from .source import MAIN_FILE, MAIN_MODULE
from .tops import check_tops


def load(origin: str, entry: str, *, name: str, path: list[str]) -> Found:
    """Read the directory `origin`.

    Raises:
        ImageError: it has no `__main__.py`, cannot be read, is too large, changed while it was read, or has a module
            that would hide one that the instance itself runs on.
    """
    if not os.path.isfile(os.path.join(origin, MAIN_FILE)):
        raise ImageError(
            f"cannot load {name!r}: the directory {origin} has no {MAIN_FILE}. Write one with `def {entry}(kernel)`, "
            "or load a file of it: FILE.py:FUNCTION.",
            path=origin,
        )
    files = read_tree(origin, "", name)
    check_tops(files, name)
    return Found("directory", name, entry, MAIN_MODULE, origin, path, archive.pack(files), files)
