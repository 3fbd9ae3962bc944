"""Images of one file of source: `server.py:main`.

What stands beside the script is not in the image: it is imported from the script's directory, as Python does it.
"""

from __future__ import annotations

import os

from multikernel.errors import ImageError

from .files import read_one
from .found import Found
from .tops import is_the_instances


def load(origin: str, entry: str, *, name: str, path: list[str]) -> Found:
    """Read the script at `origin`.

    Raises:
        ImageError: it is missing, unreadable, too large, no .py file, or has the name of a module that the instance
            itself runs on.
    """
    if not origin.endswith(".py") and os.path.lexists(origin):
        raise ImageError(
            f"cannot load {name!r}: {origin} is no Python source. A script's name ends in .py.", path=origin
        )
    if not os.path.lexists(origin) and os.path.isfile(f"{origin}.py"):
        raise ImageError(
            f"cannot load {name!r}: there is no file {origin}. There is {os.path.basename(origin)}.py.", path=origin
        )
    content = read_one(origin, name)
    module = _module_name(origin)
    if is_the_instances(module):
        raise ImageError(
            f"cannot load {name!r}: in the instance it would hide the module {module!r} that others import. "
            "Give the file another name.",
            path=origin,
        )
    beside = os.path.dirname(origin)
    path = [beside, *(each for each in path if each != beside)]
    return Found("script", name, entry, module, origin, path, content, {f"{module}.py": content})


def _module_name(origin: str) -> str:
    """The file's stem; never "__main__", so that what a program does as a program is not done."""
    stem = os.path.basename(origin).removesuffix(".py")
    return "main" if stem == "__main__" else stem.replace(".", "_") or "_"
