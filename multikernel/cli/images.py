"""Images as they are named on a command line: from where the command is typed."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multikernel.machine import Instance, Machine


def load(
    instance: Instance, spec: str, cmdline: str, initrd: str | None, *, panic: bool = False, dry_run: bool = False
) -> None:
    """Load the image `spec` into `instance`; modules are looked for here first, as `python -m` does."""
    _look_here()
    instance.load(spec, cmdline=cmdline, initrd=initrd, panic=panic, dry_run=dry_run)


def check(machine: Machine | None, name: str, spec: str, cmdline: str, initrd: str | None, memory: int) -> None:
    """See whether an instance `name` with `memory` bytes could load the image `spec`. Raises as `load` does.

    Its host is asked, if there is a machine; None: one would be made for this alone, and trust anybody.
    """
    _look_here()
    if machine is not None:
        machine.check(name, spec, cmdline, memory=memory, initrd=initrd)
        return
    from multikernel import image
    from multikernel.host import registry
    from multikernel.resources import memory as system_memory

    with contextlib.ExitStack() as opened:
        read = opened.enter_context(image.read(spec))
        data = None if initrd is None else opened.enter_context(image.Initrd.read(initrd, memory))
        registry.check_cmdline(read, cmdline)
        registry.check_fits(name, memory, read, data, pool=system_memory.available())


def sign(spec: str, key: Path, output: Path | None, *, dry_run: bool) -> dict[str, Any]:
    """Sign the image `spec`; write that to `output`, or beside the image. With `dry_run` only see that it can be done.

    Returns:
        What was signed, by which key, and the file.
    """
    from multikernel import image
    from multikernel.image import keys, signature

    _look_here()
    private = keys.read_private(key)
    with image.read(spec) as read:
        made = signature.Signature.make(read, private)
        file = output or Path(f"{read.origin}{signature.SUFFIX}")
        described = {"image": read.name, "kind": read.kind, "size": read.size, "digest": read.digest}
    if not dry_run:
        _write(file, made.text())
    return {**described, "key": made.key, "signature": str(file)}


def _write(file: Path, text: str) -> None:
    """Whole or not at all: whoever loads meanwhile finds the old one or the new one."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        new.write_text(text)
        new.replace(file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _look_here() -> None:
    here = os.getcwd()
    if sys.path[:1] != [here]:
        sys.path.insert(0, here)


def name_of(spec: str) -> str:
    """What an instance is called that runs the image `spec`: "web" for "dir/web.py:main", "pkg.web" and "dir/web/"."""
    target, _, entry = spec.rpartition(":")
    if not (target and entry.replace(".", "_").isidentifier()):
        target = spec
    if "/" in target or target in (".", "..") or target.endswith((".py", ".pyz")):
        return os.path.basename(os.path.abspath(target)).removesuffix(".py").removesuffix(".pyz")
    return target.rpartition(".")[2]
