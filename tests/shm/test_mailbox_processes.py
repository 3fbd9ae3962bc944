"""Mailboxes among processes: passed on, forked, and their ends killed; and too much of everything."""

from __future__ import annotations

import collections
import itertools
import multiprocessing
import os
import pickle
import random
import resource

import pytest

import multikernel as mk

from . import targets
from .children import LIMIT, Child, Words, open_descriptors, send_on

METHODS = ["fork", "spawn", "forkserver"]

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def join(process: multiprocessing.process.BaseProcess) -> None:
    process.join(LIMIT)
    assert process.exitcode == 0
    process.close()


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
