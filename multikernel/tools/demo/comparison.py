"""Running what the demo is compared to, `multikernel.tools.demo.peers`, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import multikernel
from multikernel.errors import MultikernelError

from .counting import Findings

# The package is this program's own, wherever it came from; of the rest of its import path nothing is taken along.
_BOOTSTRAP = """
import sys
sys.path.append(sys.argv[1])
from multikernel.tools.demo.peers import main
main(*sys.argv[2:])
"""


@dataclass(frozen=True)
class Outcome:
    """What one way of doing the job gave, and the seconds from the first file to the last."""

    findings: Findings
    seconds: float


def run(peer: str, directory: str, cpus: tuple[int, ...], progress: Callable[[int], object]) -> Outcome:
    """Let a peer do the job.

    Args:
        peer: of `multikernel.tools.demo.peers.PEERS`.
        directory: its files are counted.
        cpus: the first reads, the last parses.
        progress: called with the bytes that are done.

    Raises:
        MultikernelError: its process failed. What it had to say is on stderr.
    """
    above = os.path.dirname(os.path.dirname(os.path.abspath(multikernel.__file__)))
    arguments = [peer, directory, ",".join(map(str, cpus)), str(os.getpid())]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _BOOTSTRAP, above, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    last = b""
    with process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last = line
                if not line.startswith(b"{"):
                    progress(int(line))
        except BaseException:
            process.kill()
            raise
    if process.returncode or not last.startswith(b"{"):
        raise MultikernelError(f"what the demo is compared to ({peer}) ended with status {process.returncode}")
    document = json.loads(last)
    return Outcome(Findings.from_json(document), document["seconds"])
