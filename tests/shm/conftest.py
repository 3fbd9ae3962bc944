"""A ring of each kind, closed with the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import multikernel as mk


@pytest.fixture
def ring() -> Iterator[mk.Ring]:
    with mk.Ring(4096) as ring:
        yield ring


@pytest.fixture
def ends(ring: mk.Ring) -> tuple[mk.Sender, mk.Receiver]:
    return ring.sender(), ring.receiver()


@pytest.fixture
def box() -> Iterator[mk.Mailbox]:
    with mk.Mailbox(4096) as box:
        yield box


@pytest.fixture
def rx(box: mk.Mailbox) -> Iterator[mk.MailboxReceiver]:
    """The receiver of `box`."""
    with box.receiver() as rx:
        yield rx
