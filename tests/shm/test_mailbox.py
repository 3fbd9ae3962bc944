"""Mailboxes: many senders and one receiver, in threads and processes that come, go and die."""

from __future__ import annotations

import collections
import gc
import os
import pickle
import select
import signal
import socket
import threading

import pytest

import multikernel as mk
from multikernel.shm.channel import close_all
from multikernel.shm.door import Door
from multikernel.shm.objects import lane_object
from tests.eventually import until

from . import targets
from .children import LIMIT, Child, Words, send_on, state
from .objects import HEAD, producer

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


# --- receiving


def test_each_message_comes_with_its_sender(box, rx):
    with box.sender() as a, box.sender() as b:
        assert (a.number, b.number) == (0, 1)
        a.send(b"1")
        b.send(b"2")
        b.send(b"")
        assert rx.recv_from(timeout=LIMIT) == (0, b"1")
        assert rx.recv(timeout=LIMIT) == b"2"
        assert rx.try_recv_from() == (1, b"")
        assert rx.try_recv_from() is None
        assert rx.try_recv() is None
        assert rx.senders == (0, 1)


def test_many_at_once_are_taken_in_turns(box, rx):
    with box.sender() as a, box.sender() as b:
        a.send_many([b"a"] * 100)
        b.send_many([b"b"] * 3)
        assert rx.recv_many_from(200, timeout=LIMIT) == [(0, b"a")] * 64 + [(1, b"b")] * 3 + [(0, b"a")] * 36
        assert rx.try_recv_many(5) == []
        assert rx.try_recv_many_from(5) == []
        a.send_many([b"1", b"2", b"3"])
        assert rx.recv_many(2, timeout=LIMIT) == [b"1", b"2"]
        assert rx.try_recv_many(2) == [b"3"]


def test_nothing_came(box, rx):
    with pytest.raises(mk.Timeout, match=r"any sender within 0\.01 s"):
        rx.recv(timeout=0.01)
    with box.sender():
        with pytest.raises(mk.Timeout):
            rx.recv_from(timeout=0)
        with pytest.raises(mk.Timeout):
            rx.recv_many(3, timeout=0.01)
    for limit in (0, -1):
        with pytest.raises(ValueError, match="the least is 1"):
            rx.recv_many(limit)


def test_iterating_ends_when_all_are_gone_and_the_mailbox_is_closed(box, rx):
    with box.sender() as a, box.sender() as b:
        a.send(b"1")
        b.send(b"2")
    box.close()
    assert sorted(rx) == [b"1", b"2"]
    with pytest.raises(mk.Closed, match="closed for new ones"):
        rx.try_recv()


def test_it_stays_open_for_new_ones(box, rx):
    for i in range(5):
        with box.sender() as tx:
            tx.send(b"x")
            assert rx.recv_from(timeout=LIMIT) == (i, b"x")
        with pytest.raises(mk.Timeout):
            rx.recv(timeout=0)
    assert rx.senders == ()


def test_what_was_sent_before_the_claim_arrives(box):
    with box.sender() as a:
        a.send(b"early")
    b = box.sender()
    box_closed_by_then = box.receiver()
    box.close()
    with box_closed_by_then as rx, b:
        assert rx.recv(timeout=LIMIT) == b"early"
        b.send(b"late")
        assert rx.recv_from(timeout=LIMIT) == (1, b"late")


def test_a_full_lane_is_the_senders_own(box, rx):
    with box.sender() as a, box.sender() as b:
        while a.try_send(b"x" * 100):
            pass
        assert b.try_send(b"y")
        assert rx.try_recv_many(1000)[-1] == b"y"
        assert a.try_send(b"x")


def test_many_threads_each_with_a_sender(box, rx):
    def work() -> None:
        targets.send_numbers(box.sender(), 500)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    came: dict[int, list[bytes]] = collections.defaultdict(list)
    for _ in range(8 * 500):
        sender, payload = rx.recv_from(timeout=LIMIT)
        came[sender].append(payload)
    for thread in threads:
        thread.join()
    assert dict(came) == {number: [b"%d" % i for i in range(500)] for number in range(8)}


@pytest.mark.parametrize("wait", ["adaptive", "spin", "park"])
def test_every_policy(box, wait):
    with box.receiver(wait=wait) as rx, box.sender(wait=wait) as tx:

        def echo(words: Words) -> None:
            for i in range(200):
                tx.send(b"%d" % i)
                words.expect(i)

        with Child(echo) as child:
            for i in range(200):
                assert rx.recv(timeout=LIMIT) == b"%d" % i
                child.say(i)
            assert child.wait() == 0
    with pytest.raises(ValueError, match="wait='never'"):
        box.sender(wait="never")
    with pytest.raises(ValueError, match="wait='never'"):
        box.receiver(wait="never")


# --- event loops


def readable(fd: int, timeout: float = 0) -> bool:
    return bool(select.select([fd], [], [], timeout)[0])


def test_fileno_is_readable_while_a_message_is_unread(box, rx):
    with box.sender() as a, box.sender() as b:
        fd = rx.fileno()
        assert rx.fileno() == fd
        assert rx.try_recv() is None
        assert not readable(fd)
        for tx in (a, b, a):
            tx.send(b"1")
            tx.send(b"2")
            assert readable(fd, LIMIT)
            assert rx.try_recv() == b"1"
            assert readable(fd)
            assert rx.try_recv() == b"2"
            assert not readable(fd)


def test_fileno_is_readable_when_a_sender_comes_and_when_all_are_gone(box, rx):
    fd = rx.fileno()
    assert not readable(fd)
    tx = box.sender()
    assert readable(fd, LIMIT)
    assert rx.try_recv() is None
    assert not readable(fd)
    tx.send(b"x")
    assert readable(fd, LIMIT)
    assert rx.try_recv() == b"x"
    tx.close()
    box.close()

    def ended() -> bool:
        assert readable(fd, LIMIT)
        try:
            return rx.try_recv() is not None
        except mk.Closed:
            return True

    until(ended)
    assert readable(fd)


# --- ends


def test_it_has_one_receiver(box, rx):
    with pytest.raises(mk.NotOwner, match="has one"):
        box.receiver()


def test_a_closed_mailbox_makes_no_senders(box):
    rx = box.receiver()
    box.close()
    box.close()
    with pytest.raises(mk.Closed, match="closed"):
        box.sender()
    with pytest.raises(mk.NotOwner):
        box.receiver()
    with pytest.raises(mk.NotOwner):
        pickle.dumps(box)
    rx.close()
    with pytest.raises(mk.Closed, match="closed here"):
        rx.recv()


def test_a_sender_whose_receiver_is_gone(box):
    tx, other = box.sender(), box.sender()
    with box.receiver() as rx:
        tx.send(b"x")
        assert rx.recv(timeout=LIMIT) == b"x"
    with pytest.raises(mk.Closed):
        tx.send(b"y")
    with pytest.raises(mk.Closed):
        other.send(b"y")
    with pytest.raises(mk.Closed, match="receiver is gone"):
        box.sender()
    tx.close()
    other.close()


def test_a_receiver_that_nobody_claims_ends_the_senders(box):
    with box.sender() as tx:
        tx.send(b"x")
        box.receiver().close()
        with pytest.raises(mk.Closed):
            send_on(tx)


def test_a_sender_that_nobody_claims_is_gone(box, rx):
    tx = box.sender()
    assert rx.try_recv() is None
    assert rx.senders == (0,)
    tx.close()
    box.close()
    with pytest.raises(mk.Closed):
        rx.recv(timeout=LIMIT)


def test_forgotten_ones_warn(box):
    rx = box.receiver()
    tx = box.sender()
    tx.send(b"x")
    assert rx.recv(timeout=LIMIT) == b"x"
    ends: list[object] = [rx]
    del rx
    with pytest.warns(ResourceWarning, match="unclosed <MailboxReceiver"):
        ends.clear()
    with pytest.raises(mk.Closed):
        tx.send(b"y")
    ends = [tx]
    del tx
    with pytest.warns(ResourceWarning, match="unclosed <Sender"):
        ends.clear()


@pytest.mark.filterwarnings("error")
def test_handles_that_were_never_used_are_forgotten_without_a_word():
    box = mk.Mailbox(4096)
    ends = [box.receiver(), box.sender(), box.sender(), box]
    del box
    ends.clear()
    gc.collect()


def test_two_threads_at_once(box, rx):
    claimed = threading.Event()

    def receive() -> None:
        rx.try_recv()
        claimed.set()
        assert rx.recv(timeout=LIMIT) == b"x"

    with box.sender() as tx:
        thread = threading.Thread(target=receive)
        thread.start()
        assert claimed.wait(LIMIT)

        def in_use() -> bool:
            try:
                rx.try_recv()
            except mk.NotOwner as error:
                return "another thread" in str(error)
            return False

        until(in_use)
        tx.send(b"x")
        thread.join()
        tx.send(b"y")
        assert rx.recv(timeout=LIMIT) == b"y"


@pytest.mark.parametrize("lanes", [0, 1, 3])
def test_a_signals_handler_may_raise_out_of_a_wait(box, rx, lanes):
    class Enough(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise Enough

    def poke(words: Words, parent: int = os.getpid()) -> None:
        words.expect("waiting")
        until(lambda: state(parent) == "S")
        os.kill(parent, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    senders = [box.sender() for _ in range(lanes)]
    try:
        with Child(poke) as child:
            child.say("waiting")
            with pytest.raises(Enough):
                rx.recv(timeout=LIMIT)
            assert child.wait() == 0
    finally:
        signal.signal(signal.SIGUSR1, before)
    senders.append(box.sender())
    for tx in senders:
        tx.send(b"x")
        assert rx.recv(timeout=LIMIT) == b"x"
        tx.close()


# --- what is not trusted


def door_of(box: mk.Mailbox) -> Door:
    return box._door


def put_through(box: mk.Mailbox) -> tuple[mk.Sender, list[int]]:
    """A sender, and what came by the door of it."""
    bundle = box.receiver()._bundle
    with Door.of(os.dup(bundle._held[0][0])) as inside:
        tx = box.sender()
        _, fds = next(inside.arrivals())
    bundle.close()
    return tx, fds


def test_what_comes_by_the_door_is_checked(box, rx):
    with box.sender() as tx, mk.Mailbox(8192) as larger, mk.Mailbox(4096) as other:
        tx.send(b"1")
        assert rx.recv(timeout=LIMIT) == b"1"
        larger_tx, wrong_size = put_through(larger)
        other_tx, right = put_through(other)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        cases = [
            ({}, [], "no sender"),
            ({"sender": -1}, right, "no sender"),
            ({"sender": True}, right, "no sender"),
            ({"sender": "0"}, right, "no sender"),
            ({"sender": 1 << 32}, right, "no sender"),
            ({"sender": 9}, right[:2], "no sender"),
            ({"sender": 9}, right[:2] + right[1:2], "without its socket"),
            ({"sender": 9}, wrong_size, "where all have 4096"),
            ({"sender": 9}, [right[1], right[1], right[2]], "consumer object"),
            ({"sender": 9}, [null, right[1], right[2]], "no memfd"),
            ({"sender": 9}, [right[0], null, right[2]], "no memfd"),
            ({"sender": 9}, right, "somebody else's|claimed already"),  # by the case before
        ]
        for document, fds, what in cases:
            door_of(box).send(document, fds)
            with pytest.raises(mk.CorruptLane, match=what):
                rx.recv(timeout=LIMIT)
            tx.send(b"on")
            assert rx.recv(timeout=LIMIT) == b"on"
        another_tx, right_again = put_through(mk.Mailbox(4096))
        door_of(box).send({"sender": tx.number}, right_again)
        with pytest.raises(mk.CorruptLane, match="a second sender"):
            rx.recv(timeout=LIMIT)
        door_of(box)._socket.send(b"{")
        with pytest.raises(mk.MultikernelError, match="JSON"):
            rx.recv(timeout=LIMIT)
        close_all([*wrong_size, *right, *right_again, null])
        for end in (larger_tx, other_tx, another_tx):
            end.close()
        assert rx.senders == (tx.number,)


def test_a_sender_that_lies_is_cut_off_and_the_others_go_on(box, rx):
    own = lane_object("consumer", "test", 4096)
    ours, theirs = socket.socketpair()
    with box.sender() as honest, producer() as liar, ours:
        with theirs:
            door_of(box).send({"sender": 77}, [own, liar.fd, theirs.fileno()])
        os.close(own)
        honest.send(b"1")
        liar.record(0, b"true")
        liar.word(HEAD, 24)
        assert sorted(rx.recv_from(timeout=LIMIT) for _ in range(2)) == [(honest.number, b"1"), (77, b"true")]
        liar.word(HEAD, 1 << 62)
        with pytest.raises(mk.CorruptLane, match="sender 77 wrote a head") as caught:
            rx.recv(timeout=LIMIT)
        assert caught.value.sender == 77
        assert caught.value.value == 1 << 62
        honest.send(b"2")
        assert rx.recv_from(timeout=LIMIT) == (honest.number, b"2")
        assert rx.senders == (honest.number,)


@pytest.mark.parametrize("receive", ["recv_many", "recv_many_from"])
def test_a_liar_that_is_met_behind_others_is_told_by_the_next_call(box, rx, receive):
    """Each error of a lane is said once: by a call that has messages to give it would be lost."""
    own = lane_object("consumer", "test", 4096)
    ours, theirs = socket.socketpair()
    with box.sender() as honest, producer() as liar, ours:
        with theirs:
            door_of(box).send({"sender": 77}, [own, liar.fd, theirs.fileno()])
        os.close(own)
        honest.send(b"0")
        liar.record(0, b"true")
        liar.word(HEAD, 24)
        assert len([rx.recv(timeout=LIMIT) for _ in range(2)]) == 2  # both are taken in
        honest.send(b"0")
        assert rx.recv(timeout=LIMIT) == b"0"  # and it is the honest one's turn
        liar.word(HEAD, 1 << 62)
        errors: list[object] = []
        found: list[object] = []
        for _ in range(6):
            honest.send(b"1")
            try:
                found += getattr(rx, receive)(10, timeout=LIMIT)
            except mk.CorruptLane as error:
                errors.append(error.sender)
        assert errors == [77]
        assert found == [b"1" if receive == "recv_many" else (honest.number, b"1")] * 6


def test_an_error_does_not_hide_what_was_found_before_it(box, rx):
    with box.sender() as tx:
        assert rx.try_recv() is None
        tx.send(b"1")
        door_of(box).send({}, [])
        found: list[bytes] = []
        errors = 0
        while len(found) < 1 or not errors:
            try:
                found += rx.recv_many(10, timeout=LIMIT)
            except mk.CorruptLane:
                errors += 1
        assert found == [b"1"]
        assert errors == 1
