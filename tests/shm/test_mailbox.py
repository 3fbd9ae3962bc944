"""Mailboxes: many senders and one receiver, in threads and processes that come, go and die."""

from __future__ import annotations

import collections
import gc
import itertools
import multiprocessing
import os
import pickle
import random
import resource
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
from .children import LIMIT, Child, Words, open_descriptors, state
from .objects import HEAD, producer

METHODS = ["fork", "spawn", "forkserver"]

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def join(process: multiprocessing.process.BaseProcess) -> None:
    process.join(LIMIT)
    assert process.exitcode == 0
    process.close()


def send_on(tx: mk.Sender) -> None:
    """Until there is no room: a receiver that nobody ever claimed is noticed then."""
    for _ in range(1000):
        tx.send(b"x" * 100, timeout=LIMIT)


@pytest.fixture
def box():
    with mk.Mailbox(4096) as made:
        yield made


@pytest.fixture
def rx(box):
    with box.receiver() as end:
        yield end


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


# --- processes


@pytest.mark.parametrize("method", METHODS)
def test_senders_and_receiver_in_children(method):
    context = multiprocessing.get_context(method)
    with mk.Mailbox("64K") as box, mk.Ring("64K") as back, back.receiver() as results:
        senders = [box.sender() for _ in range(4)]
        work = [context.Process(target=targets.send_numbers, args=(tx, 200)) for tx in senders]
        work.append(context.Process(target=targets.gather, args=(box.receiver(), back.sender())))
        for child in work:
            child.start()
        box.close()
        for tx in senders:
            tx.close()
        came: dict[bytes, list[bytes]] = collections.defaultdict(list)
        for message in results:
            sender, _, payload = message.partition(b":")
            came[sender].append(payload)
        assert dict(came) == {b"%d" % number: [b"%d" % i for i in range(200)] for number in range(4)}
        for child in work:
            join(child)


@pytest.mark.parametrize("method", METHODS)
def test_whoever_holds_the_mailbox_joins_it(method, box, rx):
    context = multiprocessing.get_context(method)
    assert rx.try_recv() is None  # claimed here, and now
    with mk.Ring(4096) as back, back.receiver() as numbers:
        child = context.Process(target=targets.join_and_send, args=(box, 100, back.sender()))
        child.start()
        with box.sender() as own:
            own.send(b"own")
            number = int(numbers.recv(timeout=LIMIT))
            found = [rx.recv_from(timeout=LIMIT) for _ in range(101)]
        assert number != own.number
        assert [each for each in found if each[0] == own.number] == [(own.number, b"own")]
        assert [each for each in found if each[0] == number] == [(number, b"%d" % i) for i in range(100)]
        join(child)
        with box.sender() as again:  # its close there has not closed it here
            assert again.number not in (number, own.number)


def test_a_sender_comes_while_the_receiver_sleeps_elsewhere():
    with mk.Mailbox(4096) as box, mk.Ring(4096) as back, back.receiver() as results:
        rx = box.receiver(wait="park")

        def work(words: Words) -> None:
            tx = back.sender()
            words.say("ready")
            targets.gather(rx, tx)

        with Child(work) as child:
            child.expect("ready")
            for i in range(5):
                child.sleeps()
                with box.sender() as tx:
                    tx.send(b"hello")
                assert results.recv(timeout=LIMIT) == b"%d:hello" % i
            box.close()
            assert child.wait() == 0
        rx.close()


def test_a_forked_copy_is_nobodys(box, rx):
    with box.sender() as tx:
        tx.send(b"1")
        assert rx.recv(timeout=LIMIT) == b"1"

        def work(words: Words) -> None:
            for use in (rx.recv, rx.try_recv, rx.fileno, lambda: rx.senders, lambda: rx.recv_many(3)):
                with pytest.raises(mk.NotOwner, match="forked from"):
                    use()
            with pytest.raises(mk.NotOwner):
                tx.send(b"x")
            rx.close()

        with Child(work) as child:
            assert child.wait() == 0
        tx.send(b"2")
        assert rx.recv(timeout=LIMIT) == b"2"
        with pytest.raises(mk.NotOwner, match="no longer be passed on"):
            pickle.dumps(rx)


def test_the_first_to_use_it_has_it(box):
    rx = box.receiver()

    def work(words: Words) -> None:
        assert rx.try_recv() is None
        words.say("claimed")
        words.expect("go on")
        rx.close()

    with Child(work) as child:
        child.expect("claimed")
        with pytest.raises(mk.NotOwner, match="claimed already"):
            rx.recv()
        child.say("go on")
        assert child.wait() == 0
    rx.close()


def test_the_end_of_its_maker_closes_it_for_new_ones():
    """Also where forked copies of it live on, the receiver's own among them."""
    with mk.Ring(4096) as ring, ring.receiver() as results:
        back = ring.sender()

        def work(words: Words) -> None:
            box = mk.Mailbox(4096)
            rx, tx = box.receiver(), box.sender()

            def receive(inner: Words) -> None:
                words.sock.close()
                assert rx.recv(timeout=LIMIT) == b"x"
                inner.say("received")
                with pytest.raises(mk.Closed):
                    rx.recv(timeout=LIMIT)
                with pytest.raises(mk.Closed):
                    box.sender()
                back.send(b"closed")
                back.close()
                rx.close()

            inner = Child(receive)
            tx.send(b"x")
            inner.expect("received")
            os._exit(0)  # without closing anything

        with Child(work) as child:
            assert child.wait() == 0
        assert results.recv(timeout=LIMIT) == b"closed"
        with pytest.raises(mk.Closed):
            results.recv(timeout=LIMIT)
        back.close()


def test_killed_senders_leave_a_prefix_and_starve_nobody():
    draw = random.Random(1)
    for _ in range(8):
        with mk.Mailbox(4096) as box, box.receiver() as rx:
            children = []
            for _ in range(4):
                tx = box.sender()

                def work(words: Words, tx: mk.Sender = tx) -> None:
                    for i in range(1 << 40):
                        tx.send(b"%d" % i + bytes(i % 50))

                children.append(Child(work))
                tx.close()
            came: collections.Counter[int] = collections.Counter()
            while len(came) < 4:
                take_numbers(rx, came)
            for child in draw.sample(children, 4):
                for _ in range(draw.randrange(20)):
                    take_numbers(rx, came)
                child.kill()
            box.close()
            while take_numbers(rx, came):
                pass
            for child in children:
                child.__exit__(None, None, None)


def take_numbers(rx: mk.MailboxReceiver, came: collections.Counter[int]) -> bool:
    """Take some, each the next of its sender; whether there are more to come."""
    try:
        found = rx.recv_many_from(100, timeout=LIMIT)
    except mk.Closed:
        return False
    for sender, payload in found:
        assert payload == b"%d" % came[sender] + bytes(came[sender] % 50)
        came[sender] += 1
    return True


@pytest.mark.parametrize("full", [False, True])
def test_a_killed_receiver_ends_every_sender(full):
    """Also one that it never took in, though others hold copies of what it was."""
    with mk.Mailbox(4096) as box:
        rx = box.receiver()

        def work(words: Words) -> None:
            assert rx.try_recv() is None
            words.say("claimed")
            words.expect("never")

        with box.sender() as early, Child(work) as child:
            child.expect("claimed")
            child.stop()
            with box.sender() as late:
                for tx in (early, late):
                    while full and tx.try_send(b"x" * 100):
                        pass
                child.kill()
                for tx in (early, late):
                    with pytest.raises(mk.Closed):
                        send_on(tx)
            with pytest.raises(mk.Closed, match="receiver is gone"):
                box.sender()
        rx.close()


def test_a_receiver_that_takes_nobody_in_is_no_way_to_use_up_everything(box):
    made = []
    try:
        with pytest.raises((mk.ResourceError, OSError)):
            made.extend(box.sender() for _ in range(5000))
        assert len(made) > 100
        while len(made) > 1:  # with few descriptors allowed they took them all, and to be taken in takes some
            made.pop(0).close()
        with box.receiver() as rx:
            made[-1].send(b"x")
            assert rx.recv_from(timeout=LIMIT) == (made[-1].number, b"x")
            with box.sender() as more:
                more.send(b"y")
                assert rx.recv(timeout=LIMIT) == b"y"
    finally:
        for tx in made:
            tx.close()


def test_a_receiver_without_descriptors_enough_says_so_and_closes_nothing_but_its_own():
    """Wherever it lacks them: for the claim, or for a sender that has come."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_descriptors()
    refused = 0
    for limit in itertools.count(3):
        with mk.Mailbox(4096) as box, box.sender() as tx, box.receiver() as rx:
            tx.send(b"x")
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                found = rx.recv(timeout=LIMIT)
            except (OSError, mk.MultikernelError):
                refused += 1
            else:
                break
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert open_descriptors() == before
    assert found == b"x"
    assert refused > 3


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
