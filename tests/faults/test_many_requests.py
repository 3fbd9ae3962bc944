"""More requests at a time than anybody has use for: each is answered, and nobody else waits for that."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from multikernel.errors import MultikernelError, from_wire
from multikernel.host import address
from multikernel.host.answers import MOST_REQUESTS
from multikernel.host.rundir import RunDir
from tests.eventually import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from multikernel.shm.channel import Channel

FACTOR = int(os.environ.get("MULTIKERNEL_STRESS", "1"))
REQUESTS = 10_000 * FACTOR  # with MULTIKERNEL_STRESS=10 it is a hundred thousand
ECHO = f"{Path(__file__).parent.parent / 'images' / 'echo.py'}:main"


@pytest.fixture
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="64M") as machine:
        yield machine


@pytest.fixture
def channel(machine: mk.Machine) -> Iterator[Channel]:
    """A client that keeps to no limits."""
    with address.connect(RunDir(machine.name)) as channel:
        yield channel


def serves(machine: mk.Machine) -> None:
    """Another client's requests are answered, and not when all of the one's are."""
    begin = time.monotonic()
    machine.create("served", memory="1M", exclusive=False)
    machine.delete("served")
    assert time.monotonic() - begin < PATIENCE


def wait_for(web: mk.Instance, number: int) -> dict[str, object]:
    return {"verb": "wait", "id": number, "name": web.name, "instance": web.id, "timeout": None}


@pytest.mark.timeout(120 + 60 * FACTOR)
def test_ten_thousand_requests_that_are_sent_before_any_answer_is_read_are_answered(machine, channel):
    """At any time as many are under way as socket buffers and the host's queue hold: it is asked on as it answers."""
    sent, answered = 0, set()
    while len(answered) < REQUESTS:
        while sent < REQUESTS and channel.send({"verb": "delete", "id": sent, "name": "x", "instance": 1}, wait=False):
            sent += 1
        if len(answered) % 4096 == 0:
            serves(machine)
        while (received := channel.receive(timeout=0)) is not None:
            assert received[0]["failed"]["error"] == "NotFound"
            answered.add(received[0]["answer"])
    assert answered == set(range(REQUESTS))
    serves(machine)


def test_requests_that_wait_hold_up_nobody_and_are_all_answered_in_the_end(machine, channel):
    """Those beyond the limit at once, with what to do; the others when there is what they wait for."""
    web = machine.create("web", memory="16M", exclusive=False)
    web.load(ECHO)
    web.boot(until="ready")
    surplus = 100
    refused = set()
    for number in range(MOST_REQUESTS + surplus):
        channel.send(wait_for(web, number))
        while (received := channel.receive(timeout=0)) is not None:
            refused.add(received[0]["answer"])
    while len(refused) < surplus:
        document, _ = channel.receive(timeout=PATIENCE)
        refused.add(document["answer"])
        with pytest.raises(MultikernelError, match=f"{MOST_REQUESTS} requests.*not answered yet"):
            raise from_wire(document["failed"])
    assert refused == set(range(MOST_REQUESTS, MOST_REQUESTS + surplus))
    serves(machine)
    web.kill()
    ended = set()
    while len(ended) < MOST_REQUESTS:
        document, _ = channel.receive(timeout=PATIENCE)
        assert document["ok"]["end"]["reason"] == "killed"
        ended.add(document["answer"])
    assert ended == set(range(MOST_REQUESTS))


def test_program_whose_threads_all_wait_can_still_end_what_they_wait_for(machine):
    """More of them than were once let wait: a kill that is not read is one that never comes."""
    web = machine.create("web", memory="16M", exclusive=False)
    web.load(ECHO)
    web.boot(until="ready")
    ends: list[mk.End] = []
    threads = [threading.Thread(target=lambda: ends.append(web.wait(timeout=PATIENCE))) for _ in range(300)]
    for thread in threads:
        thread.start()
    asked = time.monotonic()
    while machine._membership.request("census", {})["requests"] <= len(threads):
        assert time.monotonic() - asked < PATIENCE
    assert web.kill().reason == "killed"
    for thread in threads:
        thread.join()
    assert [end.reason for end in ends] == ["killed"] * len(threads)
