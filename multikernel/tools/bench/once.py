"""What a process does that multiprocessing starts for a bench.

It imports nothing, so that only the start is measured.
"""

from __future__ import annotations

import os
from multiprocessing.connection import Connection


def echo_once(cpu: int, connection: Connection) -> None:
    """Move to `cpu`, and reply to the first message with itself."""
    os.sched_setaffinity(0, {cpu})
    connection.send_bytes(connection.recv_bytes())
