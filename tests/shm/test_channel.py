"""The control channel: documents arrive whole, descriptors never leak, a hostile peer hurts only itself."""

from __future__ import annotations

import array
import asyncio
import errno
import json
import math
import os
import resource
import select
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multikernel.errors import Closed, MessageTooLarge, MultikernelError, Timeout
from multikernel.shm.channel import MAX_DEPTH, MAX_DESCRIPTORS, MAX_DOCUMENT, Channel, ProtocolError, expect
from tests.eventually import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(60)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def hostile() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel, and the bare socket of a peer that keeps no rule."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with Channel(one) as channel, other:
        yield channel, other


def send_raw(sock: socket.socket, data: bytes, fds: list[int] | None = None) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], ancillary)


def in_child(work: Callable[[], object]) -> int:
    """Fork; the child does `work` and exits 0, or 1 if it raises. Returns its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def send_for_ever(channel: Channel) -> NoReturn:
    while True:
        channel.send({"fill": "x" * 5000})


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def same_file(one: int, other: int) -> bool:
    return os.path.samestat(os.fstat(one), os.fstat(other))


# -- documents ------------------------------------------------------------------------------------------------------


def test_documents_arrive_whole_and_in_order(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    for number in range(100):
        assert ours.send({"number": number, "text": "é" * number}) is True
    for number in range(100):
        assert theirs.receive(timeout=PATIENCE) == ({"number": number, "text": "é" * number}, [])


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(document=st.dictionaries(st.text(), plain, max_size=6))
def test_any_plain_document_comes_out_as_it_went_in(document: dict[str, Any]) -> None:
    ours, theirs = Channel.pair()
    with ours, theirs:
        ours.send(document)
        assert theirs.receive(timeout=PATIENCE) == (document, [])


def test_a_file_name_that_is_not_utf8_survives(pair: tuple[Channel, Channel]) -> None:
    name = os.fsdecode(b"caf\xe9.py")
    pair[0].send({"path": name})
    received = pair[1].receive()
    assert os.fsencode(received[0]["path"]) == b"caf\xe9.py"


def test_the_largest_document_arrives_and_one_byte_more_is_refused_before_it_is_sent(
    pair: tuple[Channel, Channel],
) -> None:
    ours, theirs = pair
    fill = "x" * (MAX_DOCUMENT - len('{"a":""}'))
    ours.send({"a": fill})
    assert theirs.receive(timeout=PATIENCE) == ({"a": fill}, [])
    with pytest.raises(MessageTooLarge) as caught:
        ours.send({"a": fill + "x"})
    assert (caught.value.fields["size"], caught.value.fields["limit"]) == (MAX_DOCUMENT + 1, MAX_DOCUMENT)
    assert theirs.receive(timeout=0) is None


def nested(depth: int) -> Any:
    document: Any = {}
    for _ in range(depth - 1):
        document = {"in": document}
    return document


def test_the_sender_refuses_what_the_receiver_would_refuse(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    ours.send(nested(MAX_DEPTH))
    assert theirs.receive(timeout=PATIENCE) == (nested(MAX_DEPTH), [])
    for bad in (nested(MAX_DEPTH + 1), nested(100_000)):
        with pytest.raises(ValueError, match="nested deeper"):
            ours.send(bad)
    for number in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not JSON compliant"):
            ours.send({"a": number})
    with pytest.raises(TypeError):
        ours.send({"a": b"bytes"})
    assert theirs.receive(timeout=0) is None


# -- descriptors ----------------------------------------------------------------------------------------------------


def test_descriptors_arrive_in_order_and_are_copies(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    sent = [os.memfd_create(f"test-{number}") for number in range(MAX_DESCRIPTORS)]
    ours.send({"many": True}, sent)
    _, received = theirs.receive()
    assert len(received) == MAX_DESCRIPTORS
    assert all(same_file(one, other) for one, other in zip(sent, received, strict=True))
    assert not set(sent) & set(received)
    for fd in sent + received:
        os.close(fd)


def test_one_descriptor_brings_no_second(pair: tuple[Channel, Channel]) -> None:
    pair[0].send({}, [0])
    _, received = pair[1].receive()
    assert len(received) == 1
    os.close(received[0])


def test_received_descriptors_do_not_reach_a_child_started_with_close_fds_false(pair: tuple[Channel, Channel]) -> None:
    fd = os.memfd_create("secret")
    pair[0].send({}, [fd, fd])
    _, received = pair[1].receive()
    assert not any(os.get_inheritable(copy) for copy in received)
    listing = subprocess.run(["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True)
    assert "/proc/" in listing.stdout
    assert "secret" not in listing.stdout
    for one in [fd, *received]:
        os.close(one)


def test_too_many_descriptors_are_refused_before_they_are_sent(pair: tuple[Channel, Channel]) -> None:
    with pytest.raises(ValueError, match=f"at most {MAX_DESCRIPTORS}"):
        pair[0].send({}, [0] * (MAX_DESCRIPTORS + 1))
    assert pair[1].receive(timeout=0) is None


def test_a_closed_descriptor_is_refused_by_the_system_and_nothing_is_sent(pair: tuple[Channel, Channel]) -> None:
    fd = os.memfd_create("gone")
    os.close(fd)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        pair[0].send({}, [fd])
    assert pair[1].receive(timeout=0) is None


def test_without_a_free_descriptor_a_document_arrives_alone_and_none_is_kept(pair: tuple[Channel, Channel]) -> None:
    """Who sent it did nothing wrong, and can be told."""
    fds = [os.memfd_create("test") for _ in range(4)]
    pair[0].send({"first": 1}, fds)
    pair[0].send({"next": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        with suppress(OSError):  # EMFILE
            while True:
                fds.append(os.dup(fds[0]))
        for _ in range(2):
            os.close(fds.pop())
        assert pair[1].receive(timeout=PATIENCE) == ({"first": 1}, [])
        for _ in range(2):  # both are free again
            fds.append(os.dup(fds[0]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fds:
            os.close(fd)
    assert pair[1].receive(timeout=PATIENCE) == ({"next": 1}, [])


def test_what_did_not_come_as_it_should_is_closed_and_said_with_what_may_be_the_reason() -> None:
    assert expect([], 0, "a word") == []
    fds = [os.memfd_create("test") for _ in range(3)]
    before = open_descriptors()
    with pytest.raises(MultikernelError, match=r"^a word comes with 2 descriptors, not with 3\.$"):
        expect(fds, 2, "a word")
    assert open_descriptors() == before - 3
    with pytest.raises(MultikernelError, match=r"not with 0\. If they were sent, the host may open no more.*ulimit -n"):
        expect([], 2, "a word", "the host")


# -- hostile peers --------------------------------------------------------------------------------------------------


HOSTILE = {
    "not JSON": b"{",
    "empty, but with descriptors": b"",
    "not UTF-8": b'{"a":"\xff"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "not an object": b"[]",
    "a string": b'"a"',
    "two documents": b"{}{}",
    "NaN": b'{"a":NaN}',
    "a float that overflows": b'{"a":-1e999}',
    "an integer of 60,000 digits": b'{"a":' + b"1" * 60_000 + b"}",
    "a little too deep": json.dumps(nested(MAX_DEPTH + 1)).encode(),
    "900 deep": b'{"a":' + b"[" * 900 + b"]" * 900 + b"}",
    "as deep as fits": b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "a bomb that never closes": b"[" * MAX_DOCUMENT,
    "one byte too large": b'{"a":"' + b"x" * (MAX_DOCUMENT - 7) + b'"}',
    "twice too large, and valid where it would be cut off": b"{}" + b" " * (2 * MAX_DOCUMENT),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_document_is_refused_without_its_descriptors_and_the_next_one_arrives(
    hostile: tuple[Channel, socket.socket], data: bytes
) -> None:
    channel, peer = hostile
    fd = os.memfd_create("test")
    send_raw(peer, data, [fd] * 3)
    send_raw(peer, b'{"next":1}', [fd])
    before = open_descriptors()
    with pytest.raises(ProtocolError):
        channel.receive(timeout=PATIENCE)
    assert open_descriptors() == before
    document, received = channel.receive(timeout=PATIENCE) or ({}, [])
    assert document == {"next": 1}
    for one in [fd, *received]:
        os.close(one)


@pytest.mark.parametrize("count", [MAX_DESCRIPTORS + 1, 253])
def test_surplus_descriptors_are_refused_and_all_of_them_closed(
    hostile: tuple[Channel, socket.socket], count: int
) -> None:
    channel, peer = hostile
    send_raw(peer, b"{}", [0] * count)
    before = open_descriptors()
    with pytest.raises(ProtocolError, match=f"the {MAX_DESCRIPTORS} that are allowed"):
        channel.receive(timeout=PATIENCE)
    assert open_descriptors() == before


def test_an_empty_packet_counts_as_the_end(hostile: tuple[Channel, socket.socket]) -> None:
    hostile[1].send(b"")
    with pytest.raises(Closed):
        hostile[0].receive(timeout=PATIENCE)


@given(data=st.binary(min_size=1, max_size=200))
def test_random_bytes_are_a_document_or_a_protocol_error(data: bytes) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with Channel(one) as channel, other:
        other.send(data)
        with suppress(ProtocolError):
            received = channel.receive(timeout=PATIENCE)
            assert received is not None
            assert received == (json.loads(data), [])


def test_a_peer_cannot_make_the_channel_block_by_the_flags_of_a_shared_socket(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    for end in pair:
        os.set_blocking(end.fileno(), True)  # what a forked copy may do
    assert theirs.receive(timeout=0) is None
    while ours.send({"fill": "x" * 1000}, wait=False):
        pass


def test_a_protocol_error_is_one_of_ours() -> None:
    assert issubclass(ProtocolError, MultikernelError)


# -- a peer that reads nothing, or is gone --------------------------------------------------------------------------


def test_send_without_wait_says_when_the_buffer_is_full_and_what_was_accepted_arrives(
    pair: tuple[Channel, Channel],
) -> None:
    ours, theirs = pair
    sent = 0
    while ours.send({"number": sent, "fill": "x" * 5000}, wait=False):
        sent += 1
    assert sent > 0
    assert not select.select([], [ours.fileno()], [], 0)[1]
    received = []
    while (packet := theirs.receive(timeout=0)) is not None:
        received.append(packet[0]["number"])
    assert received == list(range(sent))
    assert select.select([], [ours.fileno()], [], 5)[1]
    assert ours.send({}, wait=False) is True


def test_a_refused_send_keeps_no_copy_of_its_descriptors(pair: tuple[Channel, Channel]) -> None:
    ours, _ = pair
    while ours.send({"fill": "x" * 1000}, wait=False):
        pass
    reader, writer = os.pipe()
    assert ours.send({}, [writer], wait=False) is False
    os.close(writer)
    assert os.read(reader, 1) == b""  # end of file: no copy under way
    os.close(reader)


def test_send_waits_until_the_other_side_reads(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    pid = in_child(lambda: [ours.send({"number": number, "fill": "x" * 5000}) for number in range(1000)])
    for number in range(1000):
        received = theirs.receive(timeout=30)
        assert received is not None
        assert received[0]["number"] == number
    assert exit_code(pid) == 0


def test_a_waiting_sender_gets_closed_when_its_peer_is_killed() -> None:
    ours, theirs = Channel.pair()

    def never_read() -> NoReturn:
        ours.close()
        theirs.send({"ready": True})
        while True:
            signal.pause()

    with ours:
        with theirs:
            pid = in_child(never_read)
        assert ours.receive(timeout=30) == ({"ready": True}, [])
        killer = threading.Timer(0.1, os.kill, (pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(Closed):
            send_for_ever(ours)
        killer.join()
        assert exit_code(pid) == -signal.SIGKILL


def test_what_a_killed_peer_had_sent_is_received_before_closed() -> None:
    """Also when it died with our documents unread, which the kernel reports ahead of what it had sent."""
    ours, theirs = Channel.pair()

    def send_and_die() -> None:
        ours.close()
        fd = os.memfd_create("last words")
        for number in range(10):
            theirs.send({"number": number}, [fd])
        os.kill(os.getpid(), signal.SIGKILL)

    with ours:
        ours.send({"never": "read"})
        with theirs:
            pid = in_child(send_and_die)
        assert exit_code(pid) == -signal.SIGKILL
        for number in range(10):
            received = ours.receive(timeout=PATIENCE)
            assert received is not None
            assert received[0] == {"number": number}
            os.close(received[1][0])
        for _ in range(2):
            with pytest.raises(Closed):
                ours.receive(timeout=PATIENCE)
        with pytest.raises(Closed):
            ours.send({})


def test_receive_without_wait_raises_closed_at_the_end(pair: tuple[Channel, Channel]) -> None:
    pair[0].close()
    with pytest.raises(Closed):
        pair[1].receive(timeout=0)


def test_sending_to_a_closed_peer_raises_closed_even_where_sigpipe_kills() -> None:
    ours, theirs = Channel.pair()

    def send() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        with pytest.raises(Closed):
            ours.send({})

    with ours:
        theirs.close()
        assert exit_code(in_child(send)) == 0


def test_a_channel_closed_here_raises_closed_and_closes_twice(pair: tuple[Channel, Channel]) -> None:
    ours, _ = pair
    ours.close()
    ours.close()
    assert ours.fileno() == -1
    assert repr(ours) == "<Channel closed>"
    with pytest.raises(Closed, match="this end"):
        ours.send({})
    with pytest.raises(Closed, match="this end"):
        ours.receive()


# -- time -----------------------------------------------------------------------------------------------------------


def test_receive_times_out_no_earlier_than_asked(pair: tuple[Channel, Channel]) -> None:
    started = time.monotonic()
    with pytest.raises(Timeout) as caught:
        pair[0].receive(timeout=0.05)
    assert 0.05 <= time.monotonic() - started < PATIENCE
    assert isinstance(caught.value, TimeoutError)


def test_a_timeout_outlives_the_signals_that_interrupt_it(pair: tuple[Channel, Channel]) -> None:
    ticks = 0

    def count(signum: int, frame: object) -> None:
        nonlocal ticks
        ticks += 1

    before = signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        started = time.monotonic()
        with pytest.raises(Timeout):
            pair[0].receive(timeout=0.3)
        assert 0.3 <= time.monotonic() - started < PATIENCE
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ticks >= 2


def test_a_signal_whose_handler_raises_ends_the_wait(pair: tuple[Channel, Channel]) -> None:
    def interrupt(signum: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            pair[0].receive()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan])
def test_a_timeout_that_is_no_time_is_refused(pair: tuple[Channel, Channel], timeout: float) -> None:
    pair[1].send({})
    with pytest.raises(ValueError, match="timeout"):
        pair[0].receive(timeout=timeout)


@pytest.mark.parametrize("timeout", [None, math.inf, 1e12])
def test_a_wait_without_end_ends_with_a_document(pair: tuple[Channel, Channel], timeout: float | None) -> None:
    sender = threading.Timer(0.05, pair[1].send, ({"late": 1},))
    sender.start()
    assert pair[0].receive(timeout=timeout) == ({"late": 1}, [])
    sender.join()


# -- where it is used -----------------------------------------------------------------------------------------------


def test_an_event_loop_serves_it_without_waiting(pair: tuple[Channel, Channel]) -> None:
    host, client = pair

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def readable() -> None:
            try:
                while (packet := host.receive(timeout=0)) is not None:
                    assert host.send({"answer": packet[0]["id"]}, wait=False)
            except Closed:
                loop.remove_reader(host.fileno())
                done.set_result(None)

        loop.add_reader(host.fileno(), readable)
        await asyncio.wait_for(done, 30)

    def ask() -> None:
        host.close()
        for number in range(100):
            client.send({"id": number})
            received = client.receive(timeout=30)
            assert received is not None
            assert received[0] == {"answer": number}

    pid = in_child(ask)
    client.close()
    asyncio.run(serve())
    assert exit_code(pid) == 0


def test_a_forked_copy_that_is_closed_leaves_the_channel_as_it_was(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    assert exit_code(in_child(ours.close)) == 0
    ours.send({"still": "here"})
    assert theirs.receive(timeout=PATIENCE) == ({"still": "here"}, [])


def test_detach_gives_the_descriptor_away_and_another_channel_takes_it_up(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    fd = ours.detach()
    assert ours.fileno() == -1
    with Channel(socket.socket(fileno=fd)) as again:
        again.send({"a": 1})
        assert theirs.receive(timeout=PATIENCE) == ({"a": 1}, [])


def test_peer_names_the_process_on_the_other_side(pair: tuple[Channel, Channel]) -> None:
    assert pair[0].peer() == (os.getpid(), os.getuid(), os.getgid())


def test_descriptors_of_a_channel_are_not_inherited(pair: tuple[Channel, Channel]) -> None:
    assert not any(os.get_inheritable(end.fileno()) for end in pair)


@pytest.mark.parametrize(
    ("family", "kind"),
    [(socket.AF_UNIX, socket.SOCK_STREAM), (socket.AF_UNIX, socket.SOCK_DGRAM), (socket.AF_INET, socket.SOCK_STREAM)],
)
def test_another_kind_of_socket_is_refused(family: socket.AddressFamily, kind: socket.SocketKind) -> None:
    with socket.socket(family, kind) as sock, pytest.raises(ValueError, match="SOCK_SEQPACKET"):
        Channel(sock)
