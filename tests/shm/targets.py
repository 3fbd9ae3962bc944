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


def send_numbers(tx: mk.Sender | mk.BroadcastSender, count: int) -> None:
    with tx:
        for i in range(count):
            tx.send(b"%d" % i)


def join_and_send(box: mk.Mailbox, count: int, tx: mk.Sender) -> None:
    """Joins a mailbox by itself; says its number first."""
    with box, box.sender() as own, tx:
        tx.send(b"%d" % own.number)
        send_numbers(own, count)


def gather(rx: mk.MailboxReceiver, tx: mk.Sender) -> None:
    """Passes on whatever comes, with who sent it, until the end."""
    with rx, tx:
        while True:
            try:
                sender, payload = rx.recv_from()
            except BrokenPipeError:
                break
            tx.send(b"%d:%s" % (sender, payload))


def gather_messages(rx: mk.Receiver | mk.BroadcastReceiver, tx: mk.Sender) -> None:
    with rx, tx:
        for message in rx:
            tx.send(message)
