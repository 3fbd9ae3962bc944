"""The lane from the host to an instance: a halt and a ring arrive, and who is gone or hostile ends no host."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import multikernel as mk
from multikernel._core import ffi, lib
from multikernel.ipi.hostlane import HostLane, HostLaneReceiver
from multikernel.shm.channel import Channel
from tests.eventually import until
from tests.shm import objects
from tests.shm.children import LIMIT, Child, Words, open_descriptors


@contextmanager
def joined(work: Callable[[HostLaneReceiver, Words], object]) -> Iterator[tuple[HostLane, Child]]:
    """The host here, the instance in a process of its own."""
    here, there = Channel.pair()

    def instance(words: Words) -> None:
        here.close()
        lane = HostLaneReceiver.create(5, 1)
        there.send({}, lane.descriptors())
        producer, bell = there.receive(timeout=LIMIT)[1]
        lane.attach(producer, bell)
        there.close()
        work(lane, words)
        lane.close()

    with Child(instance) as child:
        there.close()
        lane = HostLane.create(5, 1)
        ours, theirs = socket.socketpair()
        here.send({}, [*lane.descriptors(), theirs.fileno()])
        theirs.close()
        (consumer,) = here.receive(timeout=LIMIT)[1]
        here.close()
        lane.attach(consumer, ours.detach())
        try:
            yield lane, child
        finally:
            lane.close()


def take(lane: HostLaneReceiver) -> tuple[bool, bool]:
    """The next word of the host, waited for as the kernel does it."""
    wait_set = lib.mk_wait_set_new()
    lib.mk_wait_set_add(wait_set, lane.end)
    while (ready := lib.mk_py_set_wait(wait_set, ffi.NULL, 0, ffi.NULL, False, -1)) == -errno.EINTR:
        pass
    assert ready == 1
    lib.mk_wait_set_remove(wait_set, lane.end)
    lib.mk_wait_set_free(wait_set)
    return lane.take()


def test_a_ring_and_a_halt_arrive_each_as_what_it_is():
    def serve(lane: HostLaneReceiver, words: Words) -> None:
        assert lane.take() == (False, False)
        assert not lane.ready
        words.say("ready")
        words.say(take(lane))
        words.say(take(lane))
        assert lane.take() == (False, False)

    with joined(serve) as (lane, child):
        child.expect("ready")
        lane.ring()
        child.expect([False, True])
        lane.shutdown()
        child.expect([True, False])
        assert child.wait() == 0


def test_a_ring_before_a_halt_hides_nothing():
    def serve(lane: HostLaneReceiver, words: Words) -> None:
        words.expect("look")
        halt, look = lane.take()
        again_halt, again_look = lane.take()
        words.say([halt or again_halt, look or again_look])

    with joined(serve) as (lane, child):
        for _ in range(5):
            lane.ring()
        lane.shutdown()
        lane.ring()
        child.say("look")
        child.expect([True, True])


def test_many_halts_that_nobody_reads_neither_wait_nor_fail():
    def serve(lane: HostLaneReceiver, words: Words) -> None:
        words.expect("look")
        words.say(lane.take())

    with joined(serve) as (lane, child):
        for _ in range(1000):
            lane.shutdown()
        child.say("look")
        child.expect([True, False])


def test_an_instance_that_is_gone_is_told_in_vain():
    with joined(lambda lane, words: None) as (lane, child):
        assert child.wait() == 0
        for _ in range(10):
            lane.shutdown()
            lane.ring()


def test_an_instance_that_was_never_joined_is_told_in_vain():
    before = open_descriptors()
    lane = HostLane.create(5, 1)
    lane.shutdown()
    lane.ring()
    lane.close()
    lane.close()
    assert open_descriptors() == before


def test_an_instance_that_scribbles_over_its_page_does_not_end_its_host():
    lane = HostLane.create(5, 1)
    with objects.consumer(capacity=max(4096, objects.PAGE)) as peer:
        ours, theirs = socket.socketpair()
        lane.attach(os.dup(peer.fd), ours.detach())
        peer.word(objects.TAIL, 1 << 63)
        for _ in range(1000):
            lane.shutdown()
        lane.ring()
        lane.close()
        theirs.close()


def test_the_end_of_the_host_is_closed():
    def serve(lane: HostLaneReceiver, words: Words) -> None:
        words.say("ready")
        words.expect("look")
        until(lambda: ended(lane))

    def ended(lane: HostLaneReceiver) -> bool:
        try:
            lane.take()
        except mk.Closed:
            return True
        return False

    with joined(serve) as (lane, child):
        child.expect("ready")
        lane.close()
        child.say("look")
        assert child.wait() == 0


@pytest.mark.parametrize("side", [HostLane, HostLaneReceiver])
def test_what_is_refused_leaves_no_descriptor(side):
    before = open_descriptors()
    lane = side.create(5, 1)
    with pytest.raises(mk.CorruptLane, match="no memfd"):
        lane.attach(os.open("/dev/null", os.O_RDONLY), socket.socket(socket.AF_UNIX).detach())
    lane.close()
    assert open_descriptors() == before


@pytest.mark.parametrize("side", [HostLane, HostLaneReceiver])
def test_descriptors_that_run_out_leave_nothing(side):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_descriptors()
    refused = 0
    for limit in range(3, 100):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            side.create(5, 1).close()
        except OSError:
            refused += 1
        else:
            break
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert open_descriptors() == before
    assert refused >= 2
    assert open_descriptors() == before
