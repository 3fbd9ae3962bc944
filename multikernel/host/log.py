"""Where host and zygote write what they have to say: into the run directory, once they have started.

Before that they write to the program that starts them, which shows it if they do not get that far.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multikernel.host.rundir import RunDir


def redirect(rundir: RunDir) -> None:
    """From here on, stdout and stderr of this process are `host.log`."""
    log = os.open(rundir.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def write(text: str) -> None:
    """A line. Where there is no room for it, it is lost: that ends nothing."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode(errors="backslashreplace"))
