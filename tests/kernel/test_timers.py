"""Timers of an instance: called in its loop, at their times, and never a wake-up in between."""

from __future__ import annotations

import json
import time

import pytest

from multikernel.kernel.timers import Timer, Timers, earlier
from tests.eventually import PATIENCE, until
from tests.shm.idle import check_idle


def turn(timers: Timers) -> None:
    """Run what is due, as soon as something is."""
    while time.monotonic_ns() < timers.next_due():
        pass
    timers.run()


# --- without a machine


def test_a_timer_goes_off_once_and_another_again_and_again():
    timers, seen = Timers(), []
    once = timers.after(0.001, lambda: seen.append("once"))
    again = timers.every(0.001, seen.append)
    for _ in range(4):
        turn(timers)
    assert seen.count("once") == 1
    assert len(seen) >= 4
    assert again.active
    assert not once.active
    again.cancel()
    assert timers.next_due() < 0


def test_missed_ticks_are_one_call_with_their_number_and_the_grid_stays():
    timers, seen = Timers(), []
    begin = time.monotonic_ns()
    timers.every(0.002, seen.append)
    first = timers.next_due()
    while time.monotonic_ns() < begin + 20_000_000:  # nobody comes back to the loop for ten ticks
        pass
    timers.run()
    assert len(seen) == 1
    assert seen[0] >= 9
    assert (timers.next_due() - first) == seen[0] * 2_000_000


def test_a_timer_that_is_cancelled_by_another_that_is_due_before_it_is_not_called():
    timers, seen = Timers(), []
    due: list[Timer] = []
    timers.after(0.0005, lambda: [timer.cancel() for timer in due])
    due.append(timers.after(0.0006, lambda: seen.append("later")))
    timers.after(0.0007, lambda: seen.append("last"))
    while "last" not in seen:
        turn(timers)
    assert seen == ["last"]


def test_a_timer_cancels_itself():
    timers, seen = Timers(), []

    def tick(count: int) -> None:
        seen.append(count)
        timer.cancel()

    timer = timers.every(0.0001, tick)
    turn(timers)
    turn(timers)
    assert len(seen) == 1


def test_a_timer_is_not_called_from_within_its_own_function():
    timers, depth, deepest = Timers(), 0, 0

    def tick(count: int) -> None:
        nonlocal depth, deepest
        depth += 1
        deepest = max(deepest, depth)
        end = time.monotonic_ns() + 1_000_000
        while time.monotonic_ns() < end:
            timers.run()  # as a request in the handler does
        depth -= 1

    timers.every(0.0001, tick)
    turn(timers)
    turn(timers)
    assert deepest == 1


def test_a_timer_whose_function_raises_goes_on():
    timers, seen = Timers(), []

    def tick(count: int) -> None:
        seen.append(count)
        raise LookupError("on purpose")

    timers.every(0.0001, tick)
    for _ in range(2):
        with pytest.raises(LookupError):
            turn(timers)
    assert len(seen) == 2


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e10])
def test_a_time_that_is_none_is_refused(seconds):
    with pytest.raises(ValueError, match="a timer is set to a number of seconds"):
        Timers().after(seconds, lambda: None)
    with pytest.raises(ValueError, match=r"every|a timer is set"):
        Timers().every(seconds, lambda count: None)
    with pytest.raises(ValueError, match="the least"):
        Timers().every(0, lambda count: None)


def test_the_earlier_of_two_deadlines():
    assert [earlier(-5, -1), earlier(-5, 7), earlier(7, -1), earlier(7, 3), earlier(0, 3)] == [-5, 7, 7, 3, 0]


# --- in an instance


def test_every_calls_at_its_times_while_the_instance_waits_for_messages(boot):
    """Neither a thread nor a message stands behind it; and it does not drift: the times are those of a grid."""
    link = boot("""
        import json, threading, time
        def main(kernel):
            for message in kernel.messages():
                link = message.link
                break
            ticks = []
            begin = time.monotonic()
            @kernel.every(0.01)
            def tick(count):
                ticks.append(count)
                if len(ticks) == 20:
                    tick.cancel()
                    link.send(json.dumps([time.monotonic() - begin, sum(ticks), threading.active_count()]).encode())
            for message in kernel.messages():
                pass
    """)
    link.send(b"here")
    seconds, ticks, threads = json.loads(link.recv(timeout=PATIENCE).payload)
    assert ticks * 0.01 <= seconds < (ticks + 1) * 0.01 + 1.0
    assert threads == 1


def test_timers_run_while_a_request_waits_and_between_messages_that_never_end(boot):
    link = boot("""
        def main(kernel):
            seen = []
            @kernel.every(0.001)
            def tick(count):
                seen.append(count)
            for message in kernel.messages():
                if message.payload == b"ask":
                    before = len(seen)
                    try:
                        message.link.request(b"who?", timeout=0.3)
                    except TimeoutError:
                        message.reply(b"%d" % (len(seen) - before))
                else:
                    message.reply(b"%d" % len(seen))
    """)
    link.send(b"ask")
    assert link.recv(timeout=PATIENCE).payload == b"who?"
    assert int(link.recv(timeout=PATIENCE).payload) > 0
    seen = int(link.request(b"x").payload)
    until(lambda: int(link.request(b"x").payload) >= seen + 3)  # messages do not keep the timers from their turn


def test_timers_run_while_an_image_waits_for_several_links(machine, boot):
    link = boot("""
        import multikernel as mk
        def main(kernel):
            came = {}
            for message in kernel.messages():
                came[message.payload] = message.link
                if len(came) == 2:
                    break
            links = [came[b"one"], came[b"two"]]
            seen = []
            kernel.every(0.001, seen.append)
            assert mk.wait(links, timeout=0.3) == []
            links[0].send(b"%d" % len(seen))
            kernel.after(0.01, lambda: links[0].send(b"after"))
            assert mk.wait(links) == [links[1]]
            links[1].send(links[1].recv().payload)
    """)
    with machine.connect("web", capacity="64K") as other:
        link.send(b"one")
        other.send(b"two")
        assert int(link.recv(timeout=PATIENCE).payload) > 0
        assert link.recv(timeout=PATIENCE).payload == b"after"
        other.send(b"bye")
        assert other.recv(timeout=PATIENCE).payload == b"bye"


def test_an_instance_with_a_timer_that_is_not_due_does_nothing_at_all(boot, web):
    link = boot("""
        def main(kernel):
            kernel.after(3600, print)
            kernel.every(3600, print)
            for message in kernel.messages():
                message.reply(message.payload)
    """)
    assert link.request(b"x", timeout=PATIENCE).payload == b"x"
    check_idle(web.pid)
    assert link.request(b"x", timeout=PATIENCE).payload == b"x"


def test_a_timer_that_raises_ends_main_as_a_handler_of_an_ipi_does(boot, web):
    link = boot("""
        def main(kernel):
            for message in kernel.messages():
                kernel.after(0.01, lambda: 1 / 0)
    """)
    link.send(b"now")
    end = web.wait(timeout=PATIENCE)
    assert (end.reason, end.code) == ("exception", 1)
    assert "ZeroDivisionError" in end.traceback


# --- waiting for a descriptor


def test_wait_for_a_descriptor_serves_interrupts_timers_and_new_links_and_leaves_messages(machine, boot):
    link = boot("""
        import os
        def main(kernel):
            seen = []
            kernel.on_ipi(3)(lambda vector, count: seen.append("ipi"))
            kernel.every(0.001, lambda count: seen.append("tick"))
            read, write = os.pipe()
            assert kernel.wait(read, timeout=0) is False
            kernel.after(0.05, lambda: os.write(write, b"x"))
            for message in kernel.messages():
                break
            assert kernel.wait(read) is True
            assert kernel.wait(read, timeout=0) is True
            os.read(read, 1)
            assert kernel.wait(read, timeout=0.01) is False
            @kernel.on_ipi(4)
            def write_it(vector, count): os.write(write, b"y")
            message.reply(b"waiting")
            assert kernel.wait(read) is True
            message.reply(" ".join(sorted(set(seen))).encode())
            for message in kernel.messages():
                message.reply(message.payload)
    """)
    link.send(b"first")
    assert link.recv(timeout=PATIENCE).payload == b"waiting"
    link.ipi(3)
    with machine.connect("web", capacity="64K", timeout=PATIENCE) as other:
        link.send(b"unread meanwhile")
        other.ipi(4)
        assert link.recv(timeout=PATIENCE).payload == b"ipi tick"
        assert link.recv(timeout=PATIENCE).payload == b"unread meanwhile"


def test_wait_for_a_descriptor_ends_when_the_host_asks_for_a_halt(boot, web):
    link = boot("""
        import os
        def main(kernel):
            read, write = os.pipe()
            for message in kernel.messages():
                message.reply(b"waiting")
                found = kernel.wait(read)
                return 7 if not found and kernel.halting else 1
    """)
    link.send(b"x")
    assert link.recv(timeout=PATIENCE).payload == b"waiting"
    assert web.halt(timeout=PATIENCE).code == 7


def test_wait_for_a_descriptor_that_is_none_is_refused(boot):
    link = boot("""
        import os
        def main(kernel):
            for message in kernel.messages():
                said = []
                for wrong in (1000, -1, "x"):
                    try:
                        kernel.wait(wrong, timeout=1)
                    except (OSError, ValueError, TypeError) as error:
                        said.append(type(error).__name__)
                message.reply(",".join(said).encode())
    """)
    assert link.request(b"x", timeout=PATIENCE).payload == b"OSError,ValueError,TypeError"


def test_wait_for_a_descriptor_in_the_middle_of_a_message_keeps_that_message(boot):
    """A view stays what it was, and a message that is dealt with is not given back before its time."""
    link = boot("""
        import os
        def main(kernel):
            read, write = os.pipe()
            os.write(write, b"x")
            for message in kernel.messages(copy=False):
                assert kernel.wait(read)
                message.reply(bytes(message.payload))
    """)
    for payload in (b"one", b"two"):
        assert link.request(payload, timeout=PATIENCE).payload == payload
