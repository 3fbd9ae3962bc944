"""What a message costs beside time: system calls, by strace; and copies of its payload.

strace counts over a run and over one twice as long; their difference is that of the messages alone.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benches.compare import peers
from benches.compare.peers import Peers
from benches.compare.rows import Count, Row
from benches.compare.traced import FAST_PATHS, SIZE
from multikernel.tools.bench.cases import OURS
from multikernel.tools.bench.channels import RingChannel
from multikernel.tools.bench.compare import Effort
from multikernel.tools.bench.sides import Cpus

MESSAGES = 1 << 13
TRIES = 3  # the middle one is taken: how often who waits sleeps differs, and an interpreter's start by a call at times
_LIMIT = 120.0  # seconds; only against hanging


def system_calls(cpus: Cpus, effort: Effort, known: Peers) -> Iterator[Count]:
    """For each fast path of ours, where room and messages are there, then for streams of ours and of the peers."""
    if shutil.which("strace") is None:
        raise RuntimeError("strace is not installed: scripts/debian-packages --install gets it")
    messages = MESSAGES if effort.seconds else 256

    def calls(name: str) -> float:
        return statistics.median(_calls_a_message(cpus, name, messages) for _ in range(TRIES))

    for name in FAST_PATHS:
        yield Count(f"{OURS}: {name}", "system calls a message", calls(name), most=0)
    for name in (OURS, *known.of(peers.STREAMS)):
        yield Count(f"{name}: a stream", "system calls a message", calls(name))


def _calls_a_message(cpus: Cpus, name: str, messages: int) -> float:
    return (_calls(cpus, name, 2 * messages) - _calls(cpus, name, messages)) / messages


def _calls(cpus: Cpus, name: str, messages: int) -> int:
    with tempfile.TemporaryDirectory(prefix="mk-bench-") as directory:
        summary = Path(directory) / "calls"
        command = [sys.executable, "-m", "benches.compare.traced", *map(str, cpus), name, str(messages)]
        quiet = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # numpy's threads have calls of their own
        subprocess.run(["strace", "-f", "-c", "-o", summary, "--", *command], env=quiet, timeout=_LIMIT, check=True)
        return total(summary.read_text())


def total(summary: str) -> int:
    """The calls of all kinds together, in what `strace -c` has written. ValueError: it has not."""
    for line in summary.splitlines():
        words = line.split()
        if words and words[-1] == "total":
            return int(words[3])
    raise ValueError("strace has written no total")


def copies(_cpus: Cpus, _effort: Effort, _known: Peers) -> Iterator[Count]:
    """Copies of a payload that the library makes: one for each end whose message does not lie in the ring."""
    what = "copies of a payload"
    with closing(RingChannel(SIZE)) as ring:
        with ring.tx.reserve(SIZE) as room:
            sent = not lies_in_a_lane(room)
        with ring.rx.peek() as view:
            yield Count(f"{OURS}: in place", what, sent + (not lies_in_a_lane(view)), most=0)
        ring.tx.send(bytes(SIZE))  # which is copied into the ring, so that the caller may go on with its own
        yield Count(f"{OURS}: one a call", what, 1 + (not lies_in_a_lane(ring.rx.recv())), most=2)


def lies_in_a_lane(memory: bytes | memoryview) -> bool:
    """Whether the memory of a buffer is a lane's."""
    import numpy as np

    address = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split(maxsplit=5)
        first, end = (int(each, 16) for each in span.split("-"))
        if first <= address < end:
            return name.startswith("/memfd:lane:")
    return False


ROWS = {
    "calls": Row("system calls a message", counts=system_calls),
    "copies": Row("copies of a payload by the library", counts=copies),
}
