"""A peer that writes what it likes into its own pages hurts its own lane: never a crash, never memory of others."""

from __future__ import annotations

import errno
import faulthandler
import mmap
import os
import random
import resource
import signal
import socket
import tempfile
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import multikernel as mk
from multikernel._core import ffi, lib
from multikernel.shm import objects as library
from multikernel.shm.lane_receiver import IPI_WAITS, LaneReceiver
from multikernel.shm.lane_sender import LaneSender
from multikernel.shm.waiting import AT_ONCE, deadline

from .children import LIMIT, Child, Words, open_descriptors
from .objects import (
    ALL_SEALS,
    HEAD,
    IPI,
    IPI_SEQUENCE,
    PAGE,
    PARKED,
    SIZE_SEALS,
    STATE,
    TAIL,
    Object,
    consumer,
    producer,
)

U64 = 1 << 64


def receiver_of(peer: Object, *, bell: int = -1) -> LaneReceiver:
    """Our receiver, attached to the object of a peer that is not trusted."""
    own = library.lane_object("consumer", "test", 4096)
    try:
        receiver = LaneReceiver(own, "the peer", ipis=True)
    finally:
        os.close(own)
    receiver.attach(peer.fd, owned=True, socket_fd=bell)
    return receiver


def sender_to(peer: Object) -> LaneSender:
    own = library.lane_object("producer", "test", 4096)
    try:
        sender = LaneSender(own, "the peer")
    finally:
        os.close(own)
    sender.attach(peer.fd, owned=True)
    return sender


@pytest.fixture
def hostile() -> Iterator[tuple[Object, LaneReceiver]]:
    with producer() as peer:
        receiver = receiver_of(peer)
        yield peer, receiver
        receiver.close()


# --- indices and lengths


@pytest.mark.parametrize(
    "head",
    [4096 + 8, 1 << 63, U64 - 8, 1, 4, 4097, 8],
    ids=["beyond", "huge", "backwards", "odd", "half", "odd beyond", "stub"],
)
def test_a_head_that_cannot_be_quarantines_the_lane(hostile, head):
    peer, receiver = hostile
    peer.word(HEAD, head)
    for _ in range(2):  # and it stays so, whatever the peer writes next
        with pytest.raises(
            mk.CorruptLane, match=f"the peer .*wrote a head that cannot be: {head:#x}.*quarantined"
        ) as caught:
            receiver.receive(AT_ONCE)
        assert (caught.value.what, caught.value.value, caught.value.pid) == ("head", head, os.getpid())
        peer.word(HEAD, 0)
    with pytest.raises(mk.CorruptLane):
        receiver.receive_many(5, deadline(LIMIT))
    assert receiver.ready  # nobody sleeps on it


def test_a_head_that_goes_backwards_after_a_message_is_noticed(hostile):
    peer, receiver = hostile
    peer.word(HEAD, peer.record(0, b"hello"))
    assert receiver.receive(AT_ONCE).payload == b"hello"
    peer.word(HEAD, 16)
    with pytest.raises(mk.CorruptLane, match="head"):
        receiver.receive(AT_ONCE)


@pytest.mark.parametrize("length", [6, 9, 4096, 1 << 31, (1 << 32) - 1, (1 << 32) - 16])
def test_a_length_that_reaches_beyond_what_was_published_quarantines_the_lane(hostile, length):
    peer, receiver = hostile
    peer.word(HEAD, peer.record(peer.record(0, b"whole"), b"", length=length))
    assert receiver.receive(AT_ONCE).payload == b"whole"
    with pytest.raises(mk.CorruptLane, match=f"record length that cannot be: {length:#x}"):
        receiver.receive(AT_ONCE)


def test_a_batch_is_delivered_up_to_what_cannot_be(hostile):
    peer, receiver = hostile
    position = 0
    for number in range(5):
        position = peer.record(position, b"%d" % number)
    peer.word(HEAD, peer.record(position, b"", length=4000))
    assert [record.payload for record in receiver.receive_many(9, AT_ONCE)] == [b"0", b"1", b"2", b"3", b"4"]
    with pytest.raises(mk.CorruptLane):
        receiver.receive_many(9, AT_ONCE)


@pytest.mark.parametrize("tail", [8192, 1 << 63, U64 - 8, 3], ids=["ahead", "huge", "backwards", "odd"])
def test_a_tail_that_cannot_be_quarantines_the_lane(tail):
    with consumer() as peer:
        sender = sender_to(peer)
        peer.word(TAIL, tail)
        with pytest.raises(mk.CorruptLane, match=f"wrote a tail that cannot be: {tail:#x}") as caught:  # noqa: PT012
            while True:
                sender.send(b"x" * 100, 1, 0, LIMIT)
        assert (caught.value.what, caught.value.value) == ("tail", tail)
        peer.word(TAIL, 0)
        for call in (
            lambda: sender.send_many([b"x"], 1, 0, LIMIT),
            lambda: sender.try_send(b"x", 1, 0),
            lambda: sender.ipi(0),
        ):
            with pytest.raises(mk.CorruptLane):
                call()
        sender.close()


def test_a_view_is_not_changed_by_a_length_that_changes_later(hostile):
    """Copied once, checked, then used."""
    peer, receiver = hostile
    peer.word(HEAD, peer.record(0, b"hello"))
    with receiver.view_of(lambda: ((message := receiver.look(AT_ONCE)).payload, message.length)) as view:
        peer.record(0, b"HELLO", length=(1 << 32) - 1)
        assert bytes(view) == b"HELLO"  # its bytes are the peer's, their number is not
    assert receiver.receive(AT_ONCE) is None


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just(HEAD), st.integers(0, 40).map(lambda n: 8 * n) | st.integers(0, U64 - 1)),
            st.tuples(st.just(HEAD), st.integers(0, 4200)),
            st.tuples(st.sampled_from(range(IPI, IPI + 512, 8)), st.integers(0, U64 - 1)),
            st.tuples(st.just(IPI_SEQUENCE), st.integers(0, U64 - 1)),
            st.tuples(st.just(PARKED), st.integers(0, U64 - 1)),
            st.tuples(st.sampled_from(range(PAGE, PAGE + 400, 8)), st.integers(0, 64) | st.integers(0, U64 - 1)),
        ),
        max_size=40,
    )
)
def test_whatever_a_peer_writes_the_outcome_is_a_message_nothing_or_an_error(writes):
    with producer() as peer:
        receiver = receiver_of(peer)
        try:
            for offset, value in writes:
                peer.word(offset, value)
                try:
                    record = receiver.receive(AT_ONCE)
                except mk.CorruptLane:
                    break
                except mk.Closed:  # the state was among what it wrote
                    break
                if record is IPI_WAITS:
                    first = 0
                    while (raised := receiver.take_ipi(first)) is not None:
                        first = raised[0] + 1
                        assert 0 < raised[1] < U64
                elif record is not None:
                    assert len(record.payload) <= 4096 - 16
        finally:
            receiver.close()


@pytest.mark.parametrize("side", ["producer", "consumer"])
def test_a_peer_that_scribbles_all_the_time_crashes_nobody(side):
    """Another process, random words into every word that is read, while this one receives or sends."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    peer = producer() if side == "producer" else consumer()

    def use(words: Words) -> None:
        corrupt = 0
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            end: LaneReceiver | LaneSender = receiver_of(peer) if side == "producer" else sender_to(peer)
            try:
                for _ in range(1000):
                    if isinstance(end, LaneSender):
                        end.try_send(b"x" * 50, 1, 0)
                    elif end.receive(deadline(0.001)) is IPI_WAITS:
                        end.take_ipi()
            except mk.CorruptLane:
                corrupt += 1
            except mk.Closed:
                pass
            end.close()
        words.say(corrupt)

    with Child(use) as child:
        chance = random.Random(seed)
        offsets = [HEAD, IPI_SEQUENCE, PARKED, STATE, IPI, IPI + 8, *range(PAGE, PAGE + 64, 8)]
        if side == "consumer":
            offsets = [TAIL, TAIL + 8, PARKED, STATE]
        while child_runs(child):
            for _ in range(200):
                offset = chance.choice(offsets)
                if offset == STATE:
                    peer.word(STATE, chance.choice((0, 1, 1, 1, 7, 2)), "I")
                else:
                    peer.word(offset, chance.choice((0, 8, 24, 4096, 1 << 63, chance.randrange(U64))))
        assert child.hear() > 0
        assert child.wait() == 0
    peer.close()


def child_runs(child: Child) -> bool:
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


# --- IPIs and bells


def test_ipi_counters_that_go_backwards_are_only_numbers(hostile):
    peer, receiver = hostile
    peer.word(IPI, 5)
    peer.word(IPI_SEQUENCE, 1, "I")
    assert receiver.receive(AT_ONCE) is IPI_WAITS
    assert receiver.take_ipi() == (0, 5)
    peer.word(IPI, 3)
    peer.word(IPI_SEQUENCE, 2, "I")
    assert receiver.take_ipi() == (0, U64 - 2)
    assert receiver.take_ipi() is None


def test_a_storm_of_ipis_keeps_no_message_back_and_no_call_beyond_its_deadline(hostile):
    """Who raises them without a pause gets a round of them handled before a record, not all that ever come."""
    peer, receiver = hostile
    sequence = 0

    def storm() -> None:
        nonlocal sequence
        sequence += 1
        for vector in (0, 5, 63):
            peer.word(IPI + 8 * vector, sequence)
        peer.word(IPI_SEQUENCE, sequence, "I")

    peer.word(HEAD, peer.record(0, b"hello"))
    storm()
    assert receiver.receive(AT_ONCE) is IPI_WAITS
    taken = []
    first = 0
    while (raised := receiver.take_ipi(first)) is not None:
        first = raised[0] + 1
        taken.append(raised[0])
        storm()
    assert taken == [0, 5, 63]
    storm()
    assert receiver.receive(AT_ONCE).payload == b"hello"
    assert receiver.receive(AT_ONCE) is IPI_WAITS


def test_a_round_that_an_exception_ended_is_begun_anew(hostile):
    """Each IPI that was raised before the record is taken before it, even so."""
    peer, receiver = hostile
    peer.word(IPI, 1)
    peer.word(IPI + 8, 1)
    peer.word(IPI_SEQUENCE, 2, "I")
    peer.word(HEAD, peer.record(0, b"hello"))
    assert receiver.receive(AT_ONCE) is IPI_WAITS
    assert receiver.take_ipi() == (0, 1)  # its handler raises: the round is not gone on with
    assert receiver.receive(AT_ONCE) is IPI_WAITS
    assert receiver.take_ipi() == (1, 1)
    assert receiver.take_ipi(2) is None
    assert receiver.receive(AT_ONCE).payload == b"hello"


def test_bells_without_a_message_are_no_message_and_are_counted():
    """A flood on the socket: no false message, the deadline holds, the processor time is bounded by the bells."""
    ours, theirs = socket.socketpair()
    with producer() as peer, theirs:
        receiver = receiver_of(peer, bell=ours.detach())

        def flood(words: Words) -> None:
            while True:
                theirs.send(b"x" * 1000)

        with Child(flood):
            assert receiver.receive(deadline(0.3)) is None
        spurious = receiver.read_counters().spurious
        receiver.close()
    assert spurious > 0


# --- descriptors that are refused


def file_with(content: bytes) -> int:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return os.dup(file.fileno())


NO_MEMFD = {
    "a file": lambda: file_with(b"x" * 8192),
    "a pipe": lambda: (pair := os.pipe(), os.close(pair[1]))[0][0],
    "a socket": lambda: socket.socket(socket.AF_UNIX).detach(),
    "a device": lambda: os.open("/dev/null", os.O_RDONLY),
    "a directory": lambda: os.open("/", os.O_RDONLY),
}


def refusal(fd: int, why: str, reason: int, *, capacity: int = 4096, element: int = 0) -> None:
    """A receiver and a bare check both refuse it, and what they had is given back."""
    before = open_descriptors()
    own = library.lane_object("consumer", "test", capacity, element=element)
    receiver = LaneReceiver(own, "the peer", ipis=False)
    os.close(own)
    with pytest.raises(mk.CorruptLane, match=why) as caught:
        receiver.attach(fd, owned=True)
    assert caught.value.reason == reason
    assert caught.value.kind == "producer"
    receiver.close()
    assert open_descriptors() == before


@pytest.mark.parametrize("kind", NO_MEMFD)
def test_what_is_no_memfd_is_refused(kind):
    fd = NO_MEMFD[kind]()
    refusal(fd, "the descriptor is no memfd", lib.MK_REFUSED_KIND_OF_FILE)
    os.close(fd)


@pytest.mark.parametrize("missing", [1 << bit for bit in range(6) if ALL_SEALS & 1 << bit], ids=hex)
def test_each_seal_that_is_missing_is_a_refusal(missing):
    with producer(seals=ALL_SEALS & ~missing) as peer:
        refusal(peer.fd, "not sealed by an owner", lib.MK_REFUSED_SEALS)


def test_an_end_that_nobody_has_claimed_is_no_half_of_a_link():
    with producer(seals=SIZE_SEALS) as peer:
        refusal(peer.fd, "not sealed", lib.MK_REFUSED_SEALS)


@pytest.mark.parametrize(
    ("made", "why", "reason"),
    [
        ({"size": 63}, "smaller than a header", lib.MK_REFUSED_SHORT),
        ({"magic": 5}, "does not begin as", lib.MK_REFUSED_MAGIC),
        ({"abi": 77}, f"ABI version 77, this library has {lib.MK_ABI_VERSION}", lib.MK_REFUSED_ABI),
        ({"says": 1 << 40}, "its size is not the 1099511627776 bytes", lib.MK_REFUSED_SIZE),
        ({"says": 4096}, "its size is not the 4096 bytes", lib.MK_REFUSED_SIZE),
        ({"allocate": False}, "its size", lib.MK_REFUSED_SIZE),
        ({"size": PAGE + 8192}, "its size", lib.MK_REFUSED_SIZE),
        ({"capacity": 8192}, r"its capacity \(8192 bytes\)", lib.MK_REFUSED_CAPACITY),
        ({"capacity": 5000}, r"its capacity \(5000 bytes\)", lib.MK_REFUSED_CAPACITY),
        ({"capacity": 1024}, r"its capacity \(1024 bytes\)", lib.MK_REFUSED_CAPACITY),
        ({"data_offset": 64}, "its capacity", lib.MK_REFUSED_CAPACITY),
        ({"element": 8}, r"its elements \(8 bytes\)", lib.MK_REFUSED_ELEMENT),
        ({"element": 1 << 31}, "its elements", lib.MK_REFUSED_ELEMENT),
    ],
    ids=str,
)
def test_an_object_that_is_not_what_it_says_is_refused_with_what_it_is(made, why, reason):
    with producer(**made) as peer:
        refusal(peer.fd, why, reason)


def test_an_object_of_another_kind_is_refused_by_name():
    with consumer() as peer:
        refusal(peer.fd, "it is a consumer object", lib.MK_REFUSED_KIND)
    with Object(99, size=PAGE + 4096) as peer:
        refusal(peer.fd, "it is a 99 object", lib.MK_REFUSED_KIND)


def test_a_descriptor_that_is_not_open_is_an_os_error():
    own = library.lane_object("consumer", "test", 4096)
    receiver = LaneReceiver(own, "the peer", ipis=False)
    os.close(own)
    with pytest.raises(OSError, match="Bad file descriptor"):
        receiver.attach(own, owned=True)
    receiver.close()


# --- who may write what


def test_a_claimed_end_is_never_written_through_a_descriptor():
    """Neither the read-only descriptor that the other side has, nor a writable one from before the claim."""
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        writable, _, _ = fds = tx.detach()
        tx = mk.Sender.from_fds([os.dup(fd) for fd in fds])  # noqa: PLW2901
        fds_of_receiver = rx.detach()
        read_only = fds_of_receiver[1]
        os.pwrite(writable, b"\0", PAGE)  # whoever has it still may, before the claim
        tx.send(b"x")
        for fd in (writable, read_only):
            for name, attempt in {
                "write": lambda again: os.pwrite(again, b"stray", PAGE),
                "map": lambda again: mmap.mmap(again, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
                "shrink": lambda again: os.ftruncate(again, 0),
                "grow": lambda again: os.ftruncate(again, 1 << 20),
                "allocate": lambda again: os.posix_fallocate(again, 1 << 20, 4096),
            }.items():
                with pytest.raises(OSError, match=r".") as caught:  # noqa: PT012
                    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
                    try:
                        attempt(again)
                    finally:
                        os.close(again)
                assert caught.value.errno in (errno.EPERM, errno.EACCES), name
        with pytest.raises(OSError, match=r".") as caught:
            os.write(read_only, b"stray")
        assert caught.value.errno == errno.EBADF
        rx = mk.Receiver.from_fds(fds_of_receiver)  # noqa: PLW2901
        assert rx.recv() == b"x"
        for end in (tx, rx):
            end.close()
        for fd in fds:
            os.close(fd)


def test_a_stray_write_into_the_peers_page_faults():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:

        def scribble(words: Words) -> None:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            faulthandler.disable()  # the fault is what is due: nobody is to be alarmed by its traceback
            assert rx.recv(timeout=LIMIT) == b"x"
            with rx.peek(timeout=LIMIT) as view:
                address = ffi.from_buffer("char[]", view)
                words.say("writes")
                ffi.cast("char *", address)[0] = b"!"
            words.say("wrote")

        with Child(scribble) as child:
            tx.send(b"x")
            tx.send(b"y")
            child.expect("writes")
            assert child.wait() == -signal.SIGSEGV
            with pytest.raises(mk.Closed):
                tx.send_many([b"z"] * 1000, timeout=LIMIT)
