"""A cold boot: an interpreter of its own for one instance, executed and not forked.

It takes as long as Python's own start and this library's imports, and has nothing of the zygote's memory: not what that
has preloaded, and none of what a library has kept in it since. The zygote starts it as it does a native image.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from multikernel.host import interpreter
from multikernel.image import sealed
from multikernel.kernel import boot, native
from multikernel.kernel.manifest import Manifest
from multikernel.kernel.protocol import Descriptors

if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGEST = 1 << 20  # bytes of a manifest


def spawn(manifest: Manifest, given: Descriptors, extras: Mapping[str, int]) -> int:
    """Start the instance. Arguments, result and errors are those of `multikernel.kernel.native.spawn`."""
    argv = interpreter.command("instance")
    program = os.open(sys.executable, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return native.execute(manifest, given, extras, program, argv)
    finally:
        os.close(program)


def be() -> int:
    """In the new interpreter: be the instance. Returns the exit status of this process."""
    fd = int(os.environ.pop(native.VARIABLE))
    document = json.loads(sealed.read_fd(fd, _LARGEST))
    os.close(fd)
    del document["abi"]
    passed = {key[3:]: document.pop(key) for key in list(document) if key.startswith("fd:")}
    manifest = Manifest.from_json(document)
    # What became 0, 1 and 2 is expected where a fork would have left it.
    passed |= {"console_write": os.dup(1), "input": os.dup(0)}
    given = Descriptors(**{name: passed[name] for name in Descriptors._fields})
    return boot.run(manifest, given, {name: passed[name] for name in manifest.extras}, os.getppid())
