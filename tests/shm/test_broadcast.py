"""Broadcasts: one sender, many receivers; who is slow is waited for, or told what it missed."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import random
import select
import signal
import threading

import pytest

import multikernel as mk
from multikernel._core import ffi, lib
from tests.eventually import until

from . import targets
from .children import LIMIT, Child, Words, state
from .objects import TAIL

METHODS = ["fork", "spawn", "forkserver"]
KINDS = ["wait", "miss"]

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def join(process: multiprocessing.process.BaseProcess) -> None:
    process.join(LIMIT)
    assert process.exitcode == 0
    process.close()


def send_until_closed(tx: mk.BroadcastSender) -> None:
    """Numbers, until nobody is left."""
    i = 0
    while True:
        try:
            tx.send(b"%d" % i, timeout=LIMIT)
        except mk.Closed:
            return
        i += 1


@pytest.fixture(params=KINDS)
def cast(request):
    with mk.Broadcast(4096, slow=request.param) as made:
        yield made


@pytest.fixture
def tx(cast):
    with cast.sender() as end:
        yield end


@pytest.fixture
def waits():
    """A broadcast that waits: its sender and two receivers."""
    with mk.Broadcast(4096) as cast, cast.sender() as tx, cast.receiver() as a, cast.receiver() as b:
        yield tx, a, b


@pytest.fixture
def misses():
    """A broadcast that waits for nobody: its sender and two receivers."""
    with mk.Broadcast(4096, slow="miss") as cast, cast.sender() as tx, cast.receiver() as a, cast.receiver() as b:
        yield tx, a, b


# --- both kinds


def test_all_get_the_same(cast, tx):
    with cast.receiver() as a, cast.receiver() as b:
        tx.send(b"1")
        tx.send_many([b"2", bytearray(b"3"), b""])
        assert tx.try_send(memoryview(b"4"))
        assert tx.try_send_many([b"5"]) == 1
        assert tx.receivers == 2
        for rx in (a, b):
            assert rx.recv(timeout=LIMIT) == b"1"
            assert rx.recv_many(3, timeout=LIMIT) == [b"2", b"3", b""]
            assert rx.try_recv() == b"4"
            assert rx.try_recv_many(9) == [b"5"]
            assert rx.try_recv() is None
            assert rx.try_recv_many(9) == []
            with pytest.raises(mk.Timeout):
                rx.recv(timeout=0.01)
            with pytest.raises(mk.Timeout):
                rx.recv_many(2, timeout=0)
            with pytest.raises(ValueError, match="the least is 1"):
                rx.recv_many(0)


def test_a_receiver_gets_what_is_sent_after_it_was_made(cast, tx):
    for i in range(300):
        tx.send(b"%d" % i)  # to nobody
    with cast.receiver() as early:
        tx.send(b"a")
        assert early.recv(timeout=LIMIT) == b"a"
        with cast.receiver() as late:
            tx.send(b"b")
            assert early.recv(timeout=LIMIT) == b"b"
            assert late.recv(timeout=LIMIT) == b"b"


def test_what_is_made_before_the_sender_is_claimed_gets_all(cast):
    a, b = cast.receiver(), cast.receiver()
    assert a.try_recv() is None
    with a, b, cast.sender() as tx:
        tx.send(b"x")
        assert a.recv(timeout=LIMIT) == b.recv(timeout=LIMIT) == b"x"


def test_receivers_end_with_the_sender(cast, tx):
    with cast.receiver() as a, cast.receiver() as b:
        tx.send(b"x")
        assert a.recv(timeout=LIMIT) == b"x"
        tx.close()
        tx.close()
        assert list(a) == []
        assert list(b) == [b"x"]
        with pytest.raises(mk.Closed, match=f"pid {os.getpid()}"):
            b.recv()
        with pytest.raises(mk.Closed, match="closed here"):
            tx.send(b"y")
        with pytest.raises(mk.Closed, match="closed here"):
            assert tx.receivers


def test_a_sender_that_nobody_claims_ends_the_receivers(cast):
    with cast.receiver() as rx:
        cast.sender().close()
        with pytest.raises(mk.Closed, match="nobody holds"):
            rx.recv(timeout=LIMIT)
        with pytest.raises(mk.Closed):
            cast.receiver()


def test_without_receivers_it_sends_to_nobody_until_there_will_be_none(cast, tx):
    for _ in range(1000):
        tx.send(b"x" * 100)
    with cast.receiver() as rx:
        cast.close()
        cast.close()
        tx.send(b"y")
        assert rx.recv(timeout=LIMIT) == b"y"
    assert tx.receivers == 0
    with pytest.raises(mk.Closed, match="there will be no more"):
        tx.send(b"z")
    with pytest.raises(mk.Closed) as caught:
        tx.send_many([b"z"] * 3)
    assert caught.value.sent == 0
    with pytest.raises(mk.Closed, match="closed here"):
        cast.receiver()


def test_the_end_of_its_maker_is_the_end_of_receivers_to_come():
    def work(words: Words) -> None:
        cast = mk.Broadcast(4096)
        tx, rx = cast.sender(), cast.receiver()

        def send(inner: Words) -> None:
            words.sock.close()
            tx.send(b"x")
            inner.say("sent")
            send_until_closed(tx)

        inner = Child(send)
        assert rx.recv(timeout=LIMIT) == b"x"
        inner.expect("sent")
        os._exit(0)  # without closing anything

    with Child(work) as child:
        assert child.wait() == 0
        assert child.sock.recv(1) == b""  # and so has whoever sent


def test_threads_of_the_maker_make_receivers_at_once(cast, tx):
    made: list[mk.Receiver | mk.BroadcastReceiver] = []

    def make() -> None:
        made.extend(cast.receiver() for _ in range(10))

    threads = [threading.Thread(target=make) for _ in range(5)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        tx.try_send(b"x")
    for rx in made:
        while rx.try_recv_many(1000):  # a receiver of one that overwrites gets some at a time
            pass
    tx.send(b"y", timeout=LIMIT)
    assert tx.receivers == 50
    for rx in made:
        assert rx.recv_many(1000, timeout=LIMIT) == [b"y"]
        rx.close()


@pytest.mark.parametrize("payload", ["text", None, 5])
def test_what_is_no_message(cast, tx, payload):
    with pytest.raises(TypeError):
        tx.send(payload)
    with pytest.raises(TypeError):
        tx.send_many([b"x", payload])
    with pytest.raises(TypeError, match="several"):
        tx.send_many(b"x")


def test_what_cannot_be():
    with pytest.raises(ValueError, match="'wait' and 'miss'"):
        mk.Broadcast(slow="drop")
    with pytest.raises(ValueError, match="at least one byte"):
        mk.Broadcast(0)
    with pytest.raises(ValueError, match="at most"):
        mk.Broadcast("128G")
    with mk.Broadcast() as cast, pytest.raises(ValueError, match="wait='never'"):
        cast.receiver(wait="never")
    assert cast.capacity == 1 << 20


def test_it_has_one_sender(cast, tx):
    with pytest.raises(mk.NotOwner, match="it has one"):
        cast.sender()


def test_fileno_is_readable_while_a_message_is_unread(cast, tx):
    def readable(timeout: float = 0) -> bool:
        return bool(select.select([rx], [], [], timeout)[0])

    with cast.receiver() as rx:
        assert not readable()
        for i in range(100):
            tx.send(b"%d" % i)
            tx.send(b"x")
            assert readable(LIMIT)
            assert rx.try_recv() == b"%d" % i
            assert readable()
            assert rx.try_recv() == b"x"
            assert not readable()
        tx.close()
        assert readable(LIMIT)


def test_forgotten_ones_warn(cast):
    tx = cast.sender()
    rx = cast.receiver()
    tx.send(b"x")
    assert rx.recv(timeout=LIMIT) == b"x"
    ends: list[object] = [tx]
    del tx
    with pytest.warns(ResourceWarning, match="unclosed <BroadcastSender"):
        ends.clear()
    with pytest.raises(mk.Closed):
        rx.recv(timeout=LIMIT)
    ends.append(rx)
    del rx
    with pytest.warns(ResourceWarning, match="unclosed <(Broadcast)?Receiver"):
        ends.clear()


@pytest.mark.filterwarnings("error")
def test_handles_that_were_never_used_are_forgotten_without_a_word():
    for slow in KINDS:
        cast = mk.Broadcast(4096, slow=slow)
        ends = [cast.receiver(), cast.sender(), cast.receiver(), cast]
        del cast
        ends.clear()
        gc.collect()


def test_a_signals_handler_may_raise_out_of_a_wait(misses, waits):
    class Enough(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise Enough

    def poke(words: Words, parent: int = os.getpid()) -> None:
        words.expect("waiting")
        until(lambda: state(parent) == "S")
        os.kill(parent, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        for tx, rx, _ in (misses, waits):
            with Child(poke) as child:
                child.say("waiting")
                with pytest.raises(Enough):
                    rx.recv(timeout=LIMIT)
                assert child.wait() == 0
            tx.send(b"x")
            assert rx.recv(timeout=LIMIT) == b"x"
        while tx.try_send(bytes(100)):
            pass
        with Child(poke) as child:
            child.say("waiting")
            with pytest.raises(Enough):
                tx.send(bytes(100), timeout=LIMIT)
            assert child.wait() == 0
        rx.recv_many(100)
        waits[2].recv_many(100)
        tx.send(bytes(100), timeout=LIMIT)
    finally:
        signal.signal(signal.SIGUSR1, before)


# --- one that waits


def test_the_slowest_is_waited_for(waits):
    tx, a, b = waits
    count = 0
    while tx.try_send(b"%d" % count):
        count += 1
    assert tx.try_send_many([b"x", b"y"]) == 0
    with pytest.raises(mk.Timeout, match=r"slowest receiver made no room within 0\.01 s"):
        tx.send(b"x", timeout=0.01)
    assert a.recv_many(count) == [b"%d" % i for i in range(count)]
    with pytest.raises(mk.Timeout) as caught:
        tx.send_many([b"x"], timeout=0.01)
    assert caught.value.sent == 0
    assert b.recv() == b"0"
    tx.send(b"x", timeout=LIMIT)
    assert a.recv(timeout=LIMIT) == b"x"
    assert b.recv_many(1000)[-1] == b"x"


def test_whoever_sleeps_for_room_is_woken(waits):
    tx, a, b = waits

    def receive() -> None:
        for rx in (a, b):
            assert len(rx.recv_many(1000)) > 100

    for _ in range(20):
        while tx.try_send(b"x"):
            pass
        thread = threading.Thread(target=receive)
        thread.start()
        tx.send(b"y", timeout=LIMIT)
        thread.join()
        for rx in (a, b):
            rx.try_recv_many(1000)


def test_one_that_goes_is_waited_for_no_longer(waits):
    tx, a, b = waits
    while tx.try_send(b"x"):
        a.try_recv_many(1000)
    b.close()
    tx.send(b"y", timeout=LIMIT)
    assert tx.receivers == 1


def test_a_message_that_never_fits(waits):
    with pytest.raises(mk.MessageTooLarge) as caught:
        waits[0].send(bytes(4096 - 15))
    assert (caught.value.length, caught.value.limit) == (4096 - 15, 4096 - 16)
    waits[0].send(bytes(4096 - 16))
    assert len(waits[1].recv(timeout=LIMIT)) == 4096 - 16


@pytest.mark.parametrize("claimed", [False, True])
def test_a_receiver_that_is_killed_holds_nobody_up(claimed):
    with mk.Broadcast(4096) as cast, cast.sender() as tx, cast.receiver() as other:
        rx = cast.receiver()

        def work(words: Words) -> None:
            if claimed:
                assert rx.recv(timeout=LIMIT) == b"x"
            words.say("here")
            words.expect("never")

        with Child(work) as child:
            tx.send(b"x")
            child.expect("here")
            rx.close()  # the child has it
            while tx.try_send(bytes(100)):
                pass
            other.recv_many(100)

            def kill_when_it_sleeps() -> None:
                until(lambda: state(os.getpid(), threading.main_thread().native_id) == "S")
                child.signal(signal.SIGKILL)

            thread = threading.Thread(target=kill_when_it_sleeps)
            thread.start()
            tx.send(b"y", timeout=LIMIT)
            thread.join()
            assert child.wait() == -signal.SIGKILL
        assert tx.receivers == 1
        assert other.recv(timeout=LIMIT) == b"y"


def test_a_receiver_that_lies_is_cut_off_and_the_others_go_on():
    with mk.Broadcast(4096) as cast, cast.sender() as tx:
        bad, good = cast.receiver(), cast.receiver()
        fds = bad._handle._held[0]
        why = ffi.new("uint32_t *")
        slot = ffi.gc(ffi.new("struct mk_receiver **"), lib.mk_py_drop_receiver)
        page = ffi.new("void **")
        assert lib.mk_object_map(fds[0], 4096, True, page) == 0
        assert lib.mk_receiver_claim(slot, fds[0], ffi.NULL, why) == 0
        count = 0
        while tx.try_send(b"x"):
            count += 1
        ffi.cast("uint64_t *", page[0])[TAIL // 8] = 1 << 62
        with pytest.raises(mk.CorruptLane, match="receiver 0 wrote a tail") as caught:
            tx.send(b"y")
        assert (caught.value.receiver, caught.value.value) == (0, 1 << 62)
        assert tx.receivers == 1
        assert len(good.recv_many(1000, timeout=LIMIT)) == count
        tx.send(b"y")
        assert good.recv(timeout=LIMIT) == b"y"
        lib.mk_object_unmap(page[0], 4096)
        bad.close()
        good.close()


def test_what_comes_by_the_door_is_checked():
    with mk.Broadcast(4096) as cast, cast.sender() as tx, cast.receiver() as rx, open("/dev/null") as null:
        tx.send(b"1")
        assert rx.recv(timeout=LIMIT) == b"1"
        mine = rx._handle, cast._door
        for document, fds, what in [
            ({}, [], "no receiver"),
            ({"receiver": -1}, [null.fileno()] * 2, "no receiver"),
            ({"receiver": 5}, [null.fileno()], "no receiver"),
            ({"receiver": 5}, [null.fileno()] * 2, "no memfd"),
            ({"receiver": 5}, [cast._producer, null.fileno()], "producer object"),
        ]:
            mine[1].send(document, fds)
            extra = cast.receiver()  # counts, so that the sender looks
            with pytest.raises(mk.CorruptLane, match=what):
                tx.send(b"x")
            tx.send(b"on")
            assert rx.recv(timeout=LIMIT) == b"on"
            assert extra.recv(timeout=LIMIT) == b"on"
            extra.close()


# --- one that waits for nobody


def test_what_was_missed_is_counted(misses):
    tx, a, b = misses
    sent = 0
    for burst in (10, 1000, 3, 5000):
        for _ in range(burst):
            tx.send(b"%d" % sent, timeout=0)
            sent += 1
        got = a.recv_many(7, timeout=LIMIT)
        assert [int(each) for each in got] == list(range(int(got[0]), int(got[0]) + len(got)))
        assert a.missed <= int(got[0])
        rest = [int(each) for each in iter(a.try_recv, None)]
        assert rest[-1:] in ([], [sent - 1])
    assert b.missed == 0  # it has not looked yet
    numbers = [int(each) for each in iter(b.try_recv, None)]
    assert numbers == list(range(b.missed, sent))
    assert a.missed > 4000
    tx.send_many([b"x"] * 10)
    assert a.recv_many(100) == [b"x"] * 10


def test_a_message_takes_half_of_the_ring_at_most(misses):
    tx, rx, _ = misses
    with pytest.raises(mk.MessageTooLarge) as caught:
        tx.send(bytes(2048 - 15))
    assert caught.value.limit == 2048 - 16
    for i in range(100):
        tx.send(bytes([i]) * (2048 - 16))
    assert rx.recv(timeout=LIMIT) == bytes([98]) * (2048 - 16)
    assert rx.missed == 98


def test_every_message_given_out_is_whole():
    """A sender that never stops, in a ring so small that its receivers are overtaken all the time."""
    with mk.Broadcast(4096, slow="miss") as cast:
        receivers = [cast.receiver() for _ in range(3)]
        tx = cast.sender()

        def work(words: Words) -> None:
            draw = random.Random(3)
            for i in range(100_000):
                tx.send(b"%d," % i * draw.randrange(1, 60))
            tx.close()

        with Child(work) as child:
            tx.close()
            last = dict.fromkeys(receivers, -1)
            count = dict.fromkeys(receivers, 0)
            going = set(receivers)
            while going:
                for rx in list(going):
                    try:
                        found = rx.recv_many(5, timeout=LIMIT)
                    except mk.Closed:
                        going.discard(rx)
                        continue
                    for message in found:
                        first, _, _ = message.partition(b",")
                        assert message == (first + b",") * message.count(b",")
                        assert int(first) > last[rx]
                        last[rx] = int(first)
                        count[rx] += 1
                    assert count[rx] + rx.missed == last[rx] + 1
            assert child.wait() == 0
        assert all(number == 99_999 for number in last.values())
        for rx in receivers:
            rx.close()


def test_one_that_is_killed_is_forgotten(misses):
    tx, a, b = misses

    def work(words: Words) -> None:
        assert a.recv(timeout=LIMIT) == b"x"
        words.say("here")
        a.recv()

    with Child(work) as child:
        tx.send(b"x")
        child.expect("here")
        child.sleeps()
        child.kill()
        for _ in range(3000):
            tx.send(b"y")
        assert tx.receivers == 1
    assert b.recv(timeout=LIMIT)
    with pytest.raises(mk.NotOwner, match="claimed already"):
        a.recv()


# --- processes


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("slow", KINDS)
def test_sender_and_receivers_in_children(method, slow):
    context = multiprocessing.get_context(method)
    rings = [mk.Ring("64K") for _ in range(3)]
    with mk.Broadcast("64K", slow=slow) as cast:
        ends = [cast.receiver() for _ in rings]
        work = [
            context.Process(target=targets.gather_messages, args=(end, ring.sender()))
            for end, ring in zip(ends, rings, strict=True)
        ]
        work.append(context.Process(target=targets.send_numbers, args=(cast.sender(), 500)))
        for child in work:
            child.start()
        for end in ends:
            end.close()
        for ring in rings:
            with ring.receiver() as results:
                assert list(results) == [b"%d" % i for i in range(500)]
        for child in work:
            join(child)
    for ring in rings:
        ring.close()


def test_receivers_come_while_the_sender_sends_elsewhere():
    with mk.Broadcast(4096) as cast:
        tx = cast.sender()

        def work(words: Words) -> None:
            with tx:
                send_until_closed(tx)

        with Child(work) as child:
            for _ in range(100):
                with cast.receiver() as rx:
                    first = int(rx.recv(timeout=LIMIT))
                    for i in range(1, 20):
                        assert int(rx.recv(timeout=LIMIT)) == first + i
            cast.close()
            assert child.wait() == 0
        tx.close()


@pytest.mark.parametrize("slow", KINDS)
def test_a_killed_sender_leaves_what_it_published(slow):
    draw = random.Random(2)
    for _ in range(6):
        with mk.Broadcast(4096, slow=slow) as cast, cast.receiver() as a, cast.receiver() as b:
            tx = cast.sender()

            def work(words: Words, tx: mk.BroadcastSender = tx) -> None:
                for i in range(1 << 40):
                    tx.send(b"%d" % i)

            with Child(work) as child:
                tx.close()
                ends = [[], []]
                for rx, found in zip((a, b), ends, strict=True):
                    for _ in range(draw.randrange(100)):
                        found.append(int(rx.recv(timeout=LIMIT)))
                child.kill()
            for rx, found in zip((a, b), ends, strict=True):
                found += [int(each) for each in rx]
                if slow == "wait":
                    assert found == list(range(len(found)))
                else:
                    assert found == sorted(set(found))
                    assert len(found) + rx.missed == found[-1] + 1
            assert ends[0][-1] == ends[1][-1]


def test_a_forked_copy_is_nobodys(cast, tx):
    with cast.receiver() as rx:
        tx.send(b"1")
        assert rx.recv(timeout=LIMIT) == b"1"

        def work(words: Words) -> None:
            for use in (lambda: tx.send(b"x"), lambda: tx.receivers, rx.recv, rx.try_recv, rx.fileno):
                with pytest.raises(mk.NotOwner, match="forked from"):
                    use()
            with pytest.raises(mk.NotOwner, match="made by the process that made the broadcast"):
                cast.receiver()
            tx.close()
            rx.close()
            cast.close()

        with Child(work) as child:
            assert child.wait() == 0
        tx.send(b"2")
        assert rx.recv(timeout=LIMIT) == b"2"
        with cast.receiver() as late:
            tx.send(b"3")
            assert late.recv(timeout=LIMIT) == b"3"
        for end in (tx, rx):
            with pytest.raises(mk.NotOwner):
                pickle.dumps(end)
        with pytest.raises(TypeError, match="pass its ends on"):
            pickle.dumps(cast)
