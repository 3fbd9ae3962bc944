"""Starting a process of a machine in an interpreter of its own: a host, the next host, the next zygote."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from typing import TYPE_CHECKING, Literal

import multikernel
from multikernel.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Sequence

Role = Literal["host", "heir", "zygote", "instance"]
"""What the process is to be; see `multikernel.host.__main__`."""

FIRST = 3
"""Number of the first descriptor that it is given; the others follow."""

# The package is the very one that this program has, wherever it came from; nothing else of the program's import path
# goes before what an interpreter of its own would have: its own modules must not get into the host.
_BOOTSTRAP = """
import sys
from importlib import util
package, role, *path = sys.argv[1:]
sys.path += [each for each in path if each not in sys.path]
spec = util.spec_from_file_location("multikernel", package + "/__init__.py", submodule_search_locations=[package])
module = util.module_from_spec(spec)
sys.modules["multikernel"] = module
spec.loader.exec_module(module)
from multikernel.host.__main__ import ROLES
sys.exit(ROLES[role]())
"""


def command(role: Role) -> list[str]:
    """The arguments of an interpreter that is to be `role`, the path of its program first.

    Raises:
        Unsupported: there is no interpreter to start.
    """
    if not sys.executable:
        raise Unsupported("this program cannot start a host: it does not know its Python interpreter (sys.executable)")
    package = os.path.dirname(os.path.abspath(multikernel.__file__))
    path = [os.path.abspath(each) for each in sys.path if each]
    return [sys.executable, "-P", "-c", _BOOTSTRAP, package, role, *path]


def start(role: Role, fds: Sequence[int], said: int) -> int:
    """Start one, in a session of its own, with copies of `fds` from `FIRST` on and nothing else of ours.

    Args:
        role: what it is to be.
        fds: descriptors that it is given.
        said: what it prints goes there.

    Returns:
        Its pid: it is a child of this process.

    Raises:
        Unsupported: there is no interpreter to start.
        OSError: no process, or no descriptors.
    """
    argv = command(role)
    with contextlib.ExitStack() as opened:
        null = os.open(os.devnull, os.O_RDONLY)
        opened.callback(os.close, null)
        files = []
        for source, target in ((null, 0), (said, 1), (said, 2), *((fd, FIRST + i) for i, fd in enumerate(fds))):
            # From copies out of the way, since each target may be another one's source.
            copy = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, FIRST + len(fds))
            opened.callback(os.close, copy)
            files.append((os.POSIX_SPAWN_DUP2, copy, target))
        return os.posix_spawn(
            sys.executable,
            argv,
            os.environ,
            file_actions=files,
            setsid=True,  # so that a Ctrl-C in a terminal is not its
            setsigmask=[],
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )
