from __future__ import annotations

import asyncio
import os
import resource
import socket
from typing import TYPE_CHECKING

import pytest

from multikernel.errors import Closed, MessageTooLarge
from multikernel.host.wire import MOST_QUEUED, Wire
from multikernel.shm.channel import MAX_DOCUMENT, Channel, ProtocolError
from tests.eventually import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable


class Side:
    """A wire in a loop, what it has received, and the raw other side of its channel."""

    def __init__(self) -> None:
        ours, self.other = Channel.pair()
        self.received: asyncio.Queue[tuple[dict, list[int]]] = asyncio.Queue()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.wire = Wire(ours, lambda document, fds: self.received.put_nowait((document, fds)), self.lost.set_result)

    def close(self) -> None:
        self.wire.close()
        self.other.close()


def in_loop(test: Callable[[Side], object]) -> None:
    async def run() -> None:
        side = Side()
        try:
            async with asyncio.timeout(PATIENCE):
                await test(side)
        finally:
            side.close()

    asyncio.run(run())


def test_documents_arrive_in_order_with_their_descriptors():
    async def body(side):
        fd = os.memfd_create("travels")
        for number in range(100):
            side.other.send({"number": number}, [fd])
        os.close(fd)
        for number in range(100):
            document, fds = await side.received.get()
            assert document == {"number": number}
            assert os.readlink(f"/proc/self/fd/{fds[0]}").startswith("/memfd:travels")
            os.close(fds[0])

    in_loop(body)


@pytest.fixture
def descriptors():
    """As many as the host allows itself: more than are usual for an ordinary user's process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("descriptors")
def test_peer_that_reads_late_gets_everything_in_order():
    async def body(side):
        fd = os.memfd_create("travels")
        for number in range(MOST_QUEUED):
            side.wire.send({"number": number, "padding": "x" * 4000}, [fd])
        os.close(fd)
        for number in range(MOST_QUEUED):
            document, fds = await asyncio.to_thread(side.other.receive)
            assert document["number"] == number
            os.close(fds[0])
        assert not side.lost.done()

    in_loop(body)


@pytest.mark.usefixtures("descriptors")
def test_peer_that_never_reads_is_dropped_and_nothing_is_kept_for_it():
    async def body(side):
        before = len(os.listdir("/proc/self/fd"))
        fd = os.memfd_create("travels")
        for number in range(3 * MOST_QUEUED):
            side.wire.send({"number": number, "padding": "x" * 4000}, [fd])
        os.close(fd)
        assert isinstance(await side.lost, Closed)
        assert side.wire.closed
        side.other.close()
        assert len(os.listdir("/proc/self/fd")) == before - 2

    in_loop(body)


def test_peer_that_hangs_up_is_lost_without_a_reason_after_its_last_document():
    async def body(side):
        side.other.send({"last": True})
        side.other.close()
        assert await side.lost is None
        assert side.received.get_nowait() == ({"last": True}, [])

    in_loop(body)


def test_peer_that_sends_what_is_no_document_is_lost_with_the_reason():
    async def body(side):
        with socket.socket(fileno=os.dup(side.other.fileno())) as raw:
            raw.send(b"{")
        assert isinstance(await side.lost, ProtocolError)

    in_loop(body)


def test_document_that_is_too_large_is_refused_and_the_wire_goes_on():
    async def body(side):
        with pytest.raises(MessageTooLarge):
            side.wire.send({"large": "x" * MAX_DOCUMENT})
        side.wire.send({"small": True})
        assert side.other.receive() == ({"small": True}, [])

    in_loop(body)
