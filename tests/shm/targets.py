"""What the children of tests do that are not forked: they import this by name, so it is light."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import multikernel as mk


def echo(rx: mk.Receiver, tx: mk.Sender) -> None:
    with rx, tx:
        for message in rx:
            tx.send(message)


def echo_ring(there: mk.Ring, back: mk.Ring) -> None:
    echo(there.receiver(), back.sender())


def double(rx: mk.Receiver, tx: mk.Sender) -> None:
    with rx, tx:
        for array in rx:
            tx.send(array * 2)


def send_pid(tx: mk.Sender) -> None:
    with tx:
        tx.send(str(os.getpid()).encode())


def drop(tx: mk.Sender) -> None:
    """Takes an end and does nothing with it."""
