"""Images of one file of source: `server.py:main`.

What stands beside the script is not in the image: it is imported from the script's directory, as Python does it.
"""

from __future__ import annotations

import errno
import os
import sys

from multikernel.errors import ImageError

from .image import MAX_IMAGE, Image
from .sealed import read_file


def detect(target: str) -> bool:
    """Whether `target` names a script: it is a path, or it ends as one does."""
    return target.endswith(".py") or "/" in target


def load(target: str, entry: str, *, name: str, directory: str, path: list[str]) -> Image:
    """Read the script at `target`, relative to `directory`.

    Raises:
        ImageError: it is missing, unreadable, too large, no .py file, or has the name of a module that the instance
            itself runs on. Whether it compiles shows at boot.
    """
    origin = os.path.normpath(os.path.join(directory, target))
    if not origin.endswith(".py"):
        raise ImageError(
            f"cannot load {name!r}: {origin} is no Python source. A script's name ends in .py.", path=origin
        )
    try:
        content = read_file(origin, MAX_IMAGE)
    except OSError as error:
        raise ImageError(f"cannot load {name!r}: {_reason(origin, error)}.", path=origin) from error
    module = _module_name(origin)
    if module in sys.stdlib_module_names or module == "multikernel":
        raise ImageError(
            f"cannot load {name!r}: in the instance it would hide the module {module!r} that others import. "
            "Give the file another name.",
            path=origin,
        )
    beside = os.path.dirname(origin)
    return Image.make(
        content,
        kind="script",
        name=name,
        entry=entry,
        module=module,
        origin=origin,
        path=[beside, *(each for each in path if each != beside)],
    )


def _module_name(origin: str) -> str:
    """The file's stem; never "__main__", so that what a program does as a program is not done."""
    stem = os.path.basename(origin).removesuffix(".py")
    return "main" if stem == "__main__" else stem.replace(".", "_") or "_"


def _reason(origin: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"there is no file {origin}{_beside(origin)}"
    if error.errno == errno.EFBIG:
        return f"{origin} is larger than the {MAX_IMAGE} bytes that an image may have"
    return f"{origin} cannot be read: {error.strerror}"


def _beside(origin: str) -> str:
    """What is there instead."""
    try:
        scripts = sorted(each for each in os.listdir(os.path.dirname(origin)) if each.endswith(".py"))
    except OSError as error:
        return f", and of its directory: {error.strerror}"
    more = ", ..." if len(scripts) > 8 else ""
    return f". Its directory has {', '.join(scripts[:8])}{more}" if scripts else ", nor any other script beside it"
