"""How a native instance is started: the zygote executes the sealed image, in place of the fork that a Python one is.

A fork of an interpreter copies its page tables; the start of a small program takes less than that. So the zygote does
not fork first: csrc/spawn.c has the child share its memory until it runs the image, and does there what
`multikernel.kernel.boot` does first in a forked child.

The manifest goes as a document in a sealed memory object, whose descriptor the environment names
(MULTIKERNEL_MANIFEST). It is the JSON that `Manifest` is anyway, because a native instance reads JSON from its host
already, and because a program that was built before a field was added shall go on: it reads what it knows by name. A
struct would be another layout to keep. Beside the manifest's own fields it has "abi", the version of the core, and for
each descriptor "fd:NAME", by the names of `Descriptors` and of the manifest's extras.
"""

from __future__ import annotations

import functools
import json
import os
from typing import TYPE_CHECKING, Any

from multikernel._core import ffi, lib
from multikernel.errors import MultikernelError
from multikernel.image import sealed
from multikernel.kernel.protocol import INSTANCES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multikernel.kernel.manifest import Manifest
    from multikernel.kernel.protocol import Descriptors

VARIABLE = "MULTIKERNEL_MANIFEST"
"""Names the descriptor of the manifest, in the environment of what is executed."""


def is_native(manifest: Manifest) -> bool:
    """Whether its image is executed, and not entered by an interpreter."""
    return manifest.image.get("kind") == "native"


def spawn(manifest: Manifest, given: Descriptors, extras: Mapping[str, int]) -> int:
    """Start the instance, confined and pinned; the process of the caller has one thread. Returns its pid.

    Args:
        manifest: who it is.
        given: its descriptors, which stay the caller's.
        extras: those that its manifest names besides, likewise.

    Raises:
        MultikernelError: it was not started; with what the system refused.
        OSError: there is no memory, or no descriptor, for the manifest.
    """
    return execute(manifest, given, extras, given.image, [f"multikernel:{manifest.name}"])


def execute(
    manifest: Manifest, given: Descriptors, extras: Mapping[str, int], program: int, argv: Sequence[str]
) -> int:
    """As `spawn`, of any program that reads the manifest: an open descriptor, and its arguments from its name on."""
    first: int = lib.MK_SPAWN_FIRST
    names = [name for name in given._fields if name != "console_write"]
    passed = {name: getattr(given, name) for name in names} | {n: fd for n, fd in extras.items() if n != "input"}
    document = {**manifest.to_json(), "abi": lib.MK_ABI_VERSION}
    document |= {f"fd:{name}": first + 1 + index for index, name in enumerate(passed)}
    sealed_manifest = sealed.seal(json.dumps(document).encode("ascii"), f"manifest:{manifest.name}")
    try:
        fds = [sealed_manifest, *passed.values()]
        return _execute(manifest, given.console_write, extras["input"], fds, program, argv)
    finally:
        os.close(sealed_manifest)


def _execute(manifest: Manifest, console: int, typed: int, fds: list[int], program: int, argv: Sequence[str]) -> int:
    words = [ffi.new("char[]", os.fsencode(word)) for word in argv]
    held = {  # for as long as the call takes
        "fds": ffi.new("int[]", fds),
        "cpus": ffi.new("uint32_t[]", list(manifest.cpus)),
        "directory": ffi.new("char[]", os.fsencode(manifest.directory)),
        "argv": ffi.new("char *[]", [*words, ffi.NULL]),
        "envp": ffi.new("char *[]", [*_environment(), ffi.NULL]),
    }
    what = ffi.new(
        "struct mk_spawn *",
        {"image": program, "console": console, "input": typed}
        | {"fd_count": len(fds), "cpu_count": len(manifest.cpus), "lasting": INSTANCES in manifest.extras}
        | held,
    )
    step = ffi.new("uint32_t *")
    pid: int = lib.mk_spawn(what, step)
    if pid < 0:
        raise _failure(manifest, step[0], -pid)
    return pid


@functools.cache
def _environment() -> list[Any]:
    """What is executed has the zygote's environment, which is what it is, and one variable more."""
    environment = {**os.environb, VARIABLE.encode(): b"%d" % lib.MK_SPAWN_FIRST}
    return [ffi.new("char[]", b"%s=%s" % item) for item in environment.items()]


def _failure(manifest: Manifest, step: int, code: int) -> MultikernelError:
    reason, cpus = os.strerror(code), list(manifest.cpus)
    said = {
        lib.MK_SPAWN_PROCESS: f"the system gives no process for the instance: {reason}. `ulimit -u` shows its limit.",
        lib.MK_SPAWN_PIN: f"cannot pin to cpus {cpus}: {reason}. One is offline, or outside of the cpuset, by now.",
        lib.MK_SPAWN_VERIFY: f"pinned to cpus {cpus}, but the system does not allow all of them by now.",
        lib.MK_SPAWN_FILES: f"cannot give the instance its descriptors: {reason}. `ulimit -n` shows their limit.",
        lib.MK_SPAWN_DIRECTORY: f"cannot enter {manifest.directory!r}, the directory from which the image was loaded: "
        f"{reason}. Load it again from one that is there.",
        lib.MK_SPAWN_EXECUTE: f"the system does not execute the image {manifest.image.get('name')!r}: {reason}. "
        "See that its dynamic loader is installed, and that the sysctl vm.memfd_noexec is 0 or 1.",
    }
    return MultikernelError(said.get(step, f"the instance cannot be confined: {reason}."))
