"""Images as they are named on a command line: from where the command is typed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multikernel.machine import Instance


def load(instance: Instance, spec: str, cmdline: str, initrd: str | None, *, panic: bool = False) -> None:
    """Load the image `spec` into `instance`; modules are looked for here first, as `python -m` does."""
    _look_here()
    instance.load(spec, cmdline=cmdline, initrd=initrd, panic=panic)


def check(spec: str, initrd: str | None, memory: int) -> None:
    """Read the image `spec` and its initrd, for an instance with `memory` bytes, and forget them.

    Raises:
        ImageError: one would be refused.
    """
    from multikernel import image

    _look_here()
    image.read(spec).close()
    if initrd is not None:
        image.Initrd.read(initrd, memory).close()


def _look_here() -> None:
    here = os.getcwd()
    if sys.path[:1] != [here]:
        sys.path.insert(0, here)


def name_of(spec: str) -> str:
    """What an instance is called that runs the image `spec`: "server" for "dir/server.py:main" and "pkg.server"."""
    target, _, entry = spec.rpartition(":")
    file = os.path.basename(target if target and entry.replace(".", "_").isidentifier() else spec)
    return file.removesuffix(".py").rpartition(".")[2]
