"""How a link ends, or does not come to be: closed, forgotten, killed, forked, joined to what is none."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
from dataclasses import dataclass

import pytest

import multikernel as mk
from multikernel.ipi import link as link_module
from multikernel.ipi.half import LinkHalf
from multikernel.shm.records import Counters
from tests.eventually import until
from tests.shm.children import LIMIT, Child, Words, open_descriptors, state

from .pair import Tally, echo, joined

# --- the end


def test_what_was_sent_is_received_before_closed():
    def serve(link: mk.Link, words: Words) -> None:
        link.ipi(1)
        link.send_many([b"1", b"2"])

    with joined(serve) as (link, child):
        tally = Tally().on(link)
        assert child.wait() == 0
        assert [message.payload for message in link.recv_many(9, timeout=LIMIT)] == [b"1", b"2"]
        assert tally.calls == [(1, 1)]
        for call in (link.recv, link.try_recv, lambda: link.send(b"x"), lambda: link.ipi(1), lambda: link.request(b"")):
            with pytest.raises(mk.Closed, match=rf"child \(id 5\) \(pid {child.pid}\)"):
                call()
        assert list(link) == []
        assert link.closed
        assert not link.closed_here


@pytest.mark.parametrize("waiting", ["recv", "request", "send", "peek", "wait"])
def test_the_death_of_the_peer_ends_every_wait(waiting):
    def serve(link: mk.Link, words: Words) -> None:
        words.say("here")
        words.hear()

    with joined(serve) as (link, child):
        child.expect("here")
        calls = {
            "recv": link.recv,
            "request": lambda: link.request(b"x"),
            "send": lambda: [link.send(b"x" * 10_000) for _ in range(100)],
            "peek": lambda: link.peek().__enter__(),
            "wait": lambda: (link.wait(), link.recv()),
        }
        errors: list[BaseException] = []

        def call() -> None:
            try:
                calls[waiting]()
            except mk.Closed as error:
                errors.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        until(lambda: thread.native_id and state(os.getpid(), thread.native_id) == "S")
        child.kill()
        thread.join(LIMIT)
        assert not thread.is_alive()
        assert len(errors) == 1
        assert f"pid {child.pid}" in str(errors[0])


def test_once_a_killed_peer_is_known_to_be_gone_nothing_is_sent_to_it():
    def serve(link: mk.Link, words: Words) -> None:
        words.say("here")
        words.hear()

    with joined(serve) as (link, child):
        child.expect("here")
        child.kill()
        with pytest.raises(mk.Closed):
            link.recv(timeout=LIMIT)
        for call in (
            lambda: link.send(b"x"),
            lambda: link.try_send(b"x"),
            lambda: link.send_many([b"x"]),
            lambda: link.reserve(1).__enter__(),
            lambda: link.ipi(1),
        ):
            with pytest.raises(mk.Closed, match=f"pid {child.pid}"):
                call()


def test_a_stopped_peer_is_a_timeout():
    with joined(echo) as (link, child):
        assert link.request(b"x", timeout=LIMIT).payload == b"x"
        child.stop()
        with pytest.raises(mk.Timeout):
            link.request(b"y", timeout=0.1)
        assert not link.closed
        child.signal(signal.SIGCONT)
        assert link.request(b"z", timeout=LIMIT).payload == b"z"
        assert link.late_replies == 1


def test_a_closed_link_says_so_and_may_be_closed_again():
    with joined(echo) as (link, child):
        link.close()
        link.close()
        assert link.closed
        assert link.closed_here
        for call in (link.recv, link.try_recv, lambda: link.send(b"x"), lambda: link.ipi(0), link.fileno, link.wait):
            with pytest.raises(mk.Closed, match="was closed here"):
                call()
        assert "closed" in repr(link)
        assert child.wait() == 0


def test_a_link_in_use_is_not_half_closed():
    with joined(echo) as (link, _):
        with link.reserve(1) as view:
            with pytest.raises(mk.NotOwner):
                link.close()
            view[:] = b"x"
        assert link.recv(timeout=LIMIT).payload == b"x"
        link.send(b"y")
        with link.peek(timeout=LIMIT), pytest.raises(mk.NotOwner):
            link.close()
        assert link.request(b"z", timeout=LIMIT).payload == b"z"


def test_a_link_that_is_forgotten_warns_and_closes():
    before = open_descriptors()
    half, other = LinkHalf.create(4096, 1, 1), LinkHalf.create(4096, 2, 1)
    bells = socket.socketpair()
    link = half.attach(
        [os.dup(fd) for fd in other.descriptors()],
        socket_fd=bells[0].detach(),
        pidfd=os.pidfd_open(os.getpid()),
        peer_id=2,
        peer_name="other",
    )
    with pytest.warns(ResourceWarning, match="unclosed <Link to other"):
        del link
    assert bells[1].recv(1) in (b"", b"\1")  # the last ring, or the end
    bells[1].close()
    other.close()
    assert open_descriptors() == before


def test_a_forked_copy_of_a_link_raises_and_harms_nothing():
    with joined(echo) as (link, _):
        link.fileno()
        assert link.request(b"x", timeout=LIMIT).payload == b"x"

        def use(words: Words) -> None:
            for call in (
                lambda: link.send(b"stray"),
                lambda: link.ipi(1),
                link.recv,
                link.try_recv,
                link.wait,
                link.fileno,
                lambda: link.counters,
                lambda: link.request(b"stray"),
                lambda: link.peek().__enter__(),
                lambda: link.reserve(1).__enter__(),
            ):
                with pytest.raises(mk.NotOwner, match="forked from"):
                    call()
            link.close()

        with Child(use) as child:
            assert child.wait() == 0
        assert link.request(b"y", timeout=LIMIT).payload == b"y"


def test_counters_say_what_went_through():
    with joined(echo) as (link, _):
        link.send_many([b"12345", b"678"])
        while link.counters.received < 2:
            link.recv(timeout=LIMIT)
        link.ipi(1)
        counters = link.counters
        assert isinstance(counters, Counters)
        assert (counters.sent, counters.sent_bytes) == (2, 8)
        assert (counters.received, counters.received_bytes) == (2, 8)
        assert (counters.ipis_sent, counters.ipis_received) == (1, 0)


# --- what the host says of a dead peer


@dataclass
class Record:
    state: str = "active"
    epoch: int = 1
    name: str = "child"
    due: bool = False


class Machine:
    """Where a host says what has become of an instance: after some looks, or never."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def instance(self, _: int) -> Record:
        self.looks -= 1
        return Record(state="failed" if self.looks < 0 else "active")


def test_closed_is_raised_after_the_host_has_said_what_became_of_the_peer():
    machine = Machine(looks=10)
    with joined(echo, machine=machine) as (link, child):
        assert link.request(b"x", timeout=LIMIT).payload == b"x"
        assert machine.looks == 10  # nobody asks while it lives
        child.kill()
        with pytest.raises(mk.Closed):
            link.recv(timeout=LIMIT)
        assert machine.looks == -1


def test_a_silent_host_holds_closed_back_for_a_second_at_most():
    machine = Machine(looks=1 << 60)
    with joined(echo, machine=machine) as (link, child):
        child.kill()
        with pytest.raises(mk.Closed):
            link.request(b"x", timeout=LIMIT)
        assert link_module.HOST_SPEAKS_WITHIN <= 1.0


# --- halves


def test_a_half_that_is_not_joined_leaves_nothing():
    before = open_descriptors()
    half = LinkHalf.create(4096, 1, 1)
    assert len(half.descriptors()) == 2
    half.close()
    half.close()
    assert open_descriptors() == before
    with pytest.raises(ValueError, match="power of two"):
        LinkHalf.create(5000, 1, 1)
    assert open_descriptors() == before


def test_what_a_half_hands_out_is_read_only():
    half = LinkHalf.create(4096, 1, 1)
    for fd in half.descriptors():
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        with pytest.raises(PermissionError):
            os.pwrite(again, b"stray", 0)
        os.close(again)
    half.close()


@pytest.mark.parametrize("wrong", ["swapped", "unsealed", "capacity", "one", "closed"])
def test_objects_that_are_not_what_they_must_be_close_the_half_and_all_descriptors(wrong):
    before = open_descriptors()
    half = LinkHalf.create(4096, 1, 1)
    other = LinkHalf.create(8192 if wrong == "capacity" else 4096, 2, 1)
    fds = [os.dup(fd) for fd in other.descriptors()]
    error: type[Exception] = mk.CorruptLane
    if wrong == "swapped":
        fds.reverse()
    elif wrong == "unsealed":
        os.close(fds[1])
        fds[1] = os.memfd_create("lane:by hand")
        os.ftruncate(fds[1], 4096)
    elif wrong == "one":
        os.close(fds.pop())
        error = ValueError
    elif wrong == "closed":
        half.close()
        error = ValueError
    bells = socket.socketpair()
    with pytest.raises(error):
        half.attach(fds, socket_fd=bells[0].detach(), pidfd=os.pidfd_open(os.getpid()), peer_id=2, peer_name="other")
    bells[1].close()
    other.close()
    assert open_descriptors() == before


def test_descriptors_that_run_out_leave_nothing():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_descriptors()
    refused = joined_at_last = 0
    for limit in range(3, 100):
        other = LinkHalf.create(4096, 2, 1)
        fds = [os.dup(fd) for fd in other.descriptors()]
        bells = socket.socketpair()
        pidfd = os.pidfd_open(os.getpid())
        link = None
        half = None
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            half = LinkHalf.create(4096, 1, 1)
            link = half.attach(fds, socket_fd=bells[0].detach(), pidfd=pidfd, peer_id=2, peer_name="other")
        except OSError:
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if half is None:
            for fd in (*fds, pidfd):
                os.close(fd)
        if link is not None:
            joined_at_last += 1
            link.close()
        for bell in bells:
            bell.close()
        other.close()
        assert open_descriptors() == before
        if joined_at_last:
            break
    assert refused > 5
    assert joined_at_last
