"""A link belongs to the instance: what is sent while an incarnation takes over from another arrives, once, in order."""

# ruff: noqa: F811 - fixtures that are imported are arguments here

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import threading
from pathlib import Path

import pytest

import multikernel as mk
from tests.eventually import PATIENCE, until
from tests.images.relay import FORMAT
from tests.succession import Stream, crash, in_thread, machine, make, running  # noqa: F401

AT_ONCE = mk.Restart("always", delay=0.0)


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "image.py"
    path.write_text(text)
    return str(path)


# --- links of a program


def test_a_link_goes_on_over_a_reboot(machine):
    web = make(machine, "web")
    with machine.connect("web") as link:
        assert link.request(b"epoch", timeout=PATIENCE).payload == b"1"
        web.reboot()
        assert link.request(b"epoch", timeout=PATIENCE).payload == b"2"
        web.reboot()
        web.reboot()  # one that the link has never seen
        assert link.request(b"epoch", timeout=PATIENCE).payload == b"4"


def test_a_request_under_way_is_answered_by_the_successor(machine, tmp_path):
    web = make(machine, "web", spec=script(tmp_path, """
import signal
import threading
def main(kernel):
    kernel.ready()
    while kernel.epoch == 1:
        signal.pause()
    for message in kernel.messages():
        message.reply(b"%d" % kernel.epoch)
"""))  # fmt: skip
    link = None

    def connect() -> None:
        nonlocal link
        link = machine.connect("web", timeout=PATIENCE)

    # The first one never looks, so it is made the second one's by a message that lies there before it dies.
    web.kill()
    web.boot()
    connect()
    assert link is not None
    with link:
        os.kill(web.pid, signal.SIGSTOP)
        replies: list[bytes] = []
        asker = in_thread(lambda: replies.append(link.request(b"x", timeout=PATIENCE).payload))
        reboot_stopped(web).join(PATIENCE)
        asker.join(PATIENCE)
        assert replies == [b"3"]


def reboot_stopped(web: mk.Instance) -> threading.Thread:
    """Begin a reboot of one that does not halt, and end it before that is given up."""
    rebooting = in_thread(lambda: web.reboot(timeout=PATIENCE))
    until(lambda: web.machine.view.instance(web.id).due)
    crash(web)
    return rebooting


@pytest.mark.parametrize("how", ["reboot", "SIGKILL"])
def test_a_stream_both_ways_goes_on_in_order(machine, how):
    rng = random.Random(1)
    web = make(machine, "web", restart=mk.Restart("always", limit=1000, delay=0.0))
    with machine.connect("web", capacity="16K") as link:
        stream = Stream(link)
        for _ in range(10):
            goal = stream.due + rng.randrange(2000)
            changing = None
            while stream.due < goal or (changing is not None and changing.is_alive()):
                stream.step()
                if changing is None and stream.due > goal - 500:
                    changing = in_thread(web.reboot if how == "reboot" else lambda: crash(web))
        stream.finish()
        assert web.epoch > 10 or how == "SIGKILL"
        assert web.epoch > 1


def test_one_message_to_a_successor_that_sleeps_wakes_it(machine, tmp_path):
    """Its sender does nothing else: what it sends by the dead one's account must not be left there."""
    web = make(machine, "web", spec=script(tmp_path, """
import os
def main(kernel):
    for message in kernel.messages():
        print(message.payload.decode())
        if message.payload == b"end":
            os._exit(7)
"""))  # fmt: skip
    with machine.connect("web") as link:
        for _ in range(3):
            web.reboot(until="ready")
        link.send(b"end")
        assert web.wait(timeout=PATIENCE).code == 7


def test_one_message_wakes_a_successor_of_which_the_sender_was_not_told(machine, tmp_path):
    """The host is stopped, or slow, when the sender asks for it; the page says that it is there."""
    web = make(machine, "web", spec=script(tmp_path, """
import os
def main(kernel):
    for message in kernel.messages():
        os._exit(7)
"""))  # fmt: skip
    with machine.connect("web") as link:
        for _ in range(2):
            web.reboot(until="ready")
        while "futex" in Path(f"/proc/{web.pid}/wchan").read_text():  # a sleep of some milliseconds; then one of no end
            pass
        ended, host = os.pidfd_open(web.pid), machine.pid
        os.kill(host, signal.SIGSTOP)
        try:
            link.send(b"end")
            assert select.select([ended], [], [], PATIENCE)[0]
        finally:
            os.kill(host, signal.SIGCONT)
            os.close(ended)
        assert web.wait(timeout=PATIENCE).code == 7


def test_sends_go_on_until_the_lane_is_full_and_wait_then(machine, tmp_path):
    web = make(machine, "web", restart=mk.Restart("always", delay=1.0))
    with machine.connect("web", capacity=4096) as link:
        assert link.request(b"epoch", timeout=PATIENCE).payload == b"1"
        crash(web)
        web.wait(timeout=PATIENCE)
        os.kill(machine.pid, signal.SIGSTOP)  # however long this takes here, the restart comes after it
        try:
            stream = Stream(link)
            while link.try_send(FORMAT.pack(stream.sent, 0)):
                stream.sent += 1
            assert stream.sent > 100
            with pytest.raises(TimeoutError):
                link.send(FORMAT.pack(stream.sent, 0), timeout=0.02)
            with pytest.raises(TimeoutError):
                link.recv(timeout=0.02)
            assert link.try_recv() is None
            assert not link.closed
        finally:
            os.kill(machine.pid, signal.SIGCONT)
        link.send(FORMAT.pack(stream.sent, 0), timeout=PATIENCE)
        stream.sent += 1
        stream.finish()
        assert web.epoch == 2


def test_waits_of_every_kind_end_when_the_successor_sends(machine):
    web = make(machine, "web")
    with machine.connect("web") as link:
        for wait in (
            lambda: mk.wait([link], PATIENCE),
            lambda: select.select([link.fileno()], [], [], PATIENCE)[0],
            lambda: link.wait(PATIENCE),
            lambda: next(iter(link.recv_many(4, PATIENCE))),
        ):
            os.kill(web.pid, signal.SIGSTOP)
            link.send(FORMAT.pack(0, 0))
            rebooting = reboot_stopped(web)
            assert wait() != []
            rebooting.join(PATIENCE)
            link.try_recv()


@pytest.mark.parametrize("busy", [0, 2])
def test_tasks_wait_for_a_successor(machine, busy):
    """Also where other threads want the interpreter: what the host sends is received by the one that reboots."""
    web = make(machine, "web")
    over = threading.Event()

    def be_busy() -> None:
        while not over.is_set():
            pass

    async def ask_over_reboots(link: mk.Link) -> list[bytes]:
        loop = asyncio.get_running_loop()
        answers = []
        for _ in range(3):
            rebooting = loop.run_in_executor(None, web.reboot)
            answers += [(await link.arequest(b"epoch", timeout=PATIENCE)).payload for _ in range(20)]
            await rebooting
        answers.append((await link.arequest(b"epoch", timeout=PATIENCE)).payload)
        return answers

    threads = [in_thread(be_busy) for _ in range(busy)]
    try:
        with machine.connect("web") as link:
            answers = asyncio.run(ask_over_reboots(link))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert answers == sorted(answers)
    assert answers[-1] == b"4"


def test_interrupts_are_counted_over_a_reboot(machine, tmp_path):
    web = make(machine, "web", spec=script(tmp_path, """
def main(kernel):
    seen = 0
    @kernel.on_ipi(5)
    def tick(vector, count):
        nonlocal seen
        seen += count
    for message in kernel.messages():
        message.link.ipi(9)
        message.reply(b"%d" % seen)
"""))  # fmt: skip
    counted = 0
    with machine.connect("web") as link:
        heard: list[int] = []
        link.on_ipi(9, lambda _, count: heard.append(count))
        for round_ in range(4):
            for _ in range(round_ + 1):
                link.ipi(5)
            counted += int(link.request(b"?", timeout=PATIENCE).payload)
            web.reboot()
        counted += int(link.request(b"?", timeout=PATIENCE).payload)
        assert counted == 1 + 2 + 3 + 4
        assert sum(heard) == 5


# --- messages that were seen


def test_what_was_in_the_hands_of_the_dead_comes_again_and_says_so(machine, tmp_path):
    web = make(machine, "web", restart=AT_ONCE, spec=script(tmp_path, """
import os, signal
def main(kernel):
    for message in kernel.messages(copy=kernel.epoch % 2):
        if bytes(message.payload) == b"die" and not message.redelivered:
            os.kill(os.getpid(), signal.SIGKILL)
        message.reply(b"%d" % message.redelivered)
"""))  # fmt: skip
    with machine.connect("web") as link:
        for _ in range(2):  # a copy, then a view
            for payload in (b"before", b"die", b"after"):
                link.send(payload)
            assert [link.recv(timeout=PATIENCE).payload for _ in range(3)] == [b"0", b"1", b"0"]
        assert web.epoch == 3


def test_a_message_of_which_four_have_died_is_set_aside(machine):
    web = make(machine, "web", restart=AT_ONCE)
    with machine.connect("web") as link:
        link.send(b"drop")
        assert link.request(b"epoch", timeout=PATIENCE).payload == b"5"
        assert "was set aside" in machine.proc["instances/web/console"]
        assert web.epoch == 5


def test_a_boot_that_fails_counts_no_message_as_seen(machine, tmp_path):
    """Incarnations that never came to the message did not die of it."""
    web = make(machine, "web", restart=AT_ONCE, spec=script(tmp_path, """
import os, signal
def main(kernel):
    for message in kernel.messages():
        if kernel.epoch in (1, 2):
            os.kill(os.getpid(), signal.SIGKILL)
        message.reply(b"%d" % message.redelivered)
"""))  # fmt: skip
    with machine.connect("web") as link:
        assert link.request(b"x", timeout=PATIENCE).payload == b"1"
        assert web.epoch == 3


def test_a_boot_that_fails_after_it_has_taken_a_link_over_ends_no_link(machine, tmp_path):
    """Its peers may have gone on with it by then; they go on with the next one."""
    failed = tmp_path / "failed"
    web = make(machine, "web", restart=AT_ONCE, spec=script(tmp_path, f"""
import pathlib
began, failed = pathlib.Path({str(tmp_path / "began")!r}), pathlib.Path({str(failed)!r})
if began.exists() and not failed.exists():
    failed.touch()
    raise RuntimeError("not this time")
def main(kernel):
    began.touch()
    for message in kernel.messages():
        message.reply(b"%d" % kernel.epoch)
"""))  # fmt: skip
    with machine.connect("web") as link:
        assert link.request(b"x", timeout=PATIENCE).payload == b"1"
        crash(web)
        assert link.request(b"x", timeout=PATIENCE).payload == b"3"
    assert failed.exists()


# --- when none comes


@pytest.mark.parametrize("how", ["halt", "kill", "fails"])
def test_without_a_successor_it_is_closed(machine, tmp_path, how):
    web = make(machine, "web")
    with machine.connect("web") as link:
        link.send(FORMAT.pack(0, 0))
        assert link.recv(timeout=PATIENCE)
        if how == "fails":
            crash(web)
        else:
            getattr(web, how)()
        with pytest.raises(mk.Closed):
            link.recv(timeout=PATIENCE)
        with pytest.raises(mk.Closed):
            link.send(b"x", timeout=PATIENCE)
        assert web.state == ("failed" if how == "fails" else "loaded")
        web.boot()
        with pytest.raises(mk.Closed):  # a later boot is none of its business
            link.recv(timeout=PATIENCE)


def test_who_waits_for_a_successor_that_fails_for_good_is_told_closed(machine, tmp_path):
    web = make(machine, "web", spec=script(tmp_path, """
import os, signal
def main(kernel):
    if kernel.epoch > 1:
        os.kill(os.getpid(), signal.SIGKILL)
    for message in kernel.messages():
        message.reply(message.payload)
"""), restart=mk.Restart("always", limit=2, delay=0.01))  # fmt: skip
    with machine.connect("web") as link:
        crash(web)
        with pytest.raises(mk.Closed):
            link.recv(timeout=PATIENCE)
        assert web.state == "failed"
        assert not machine.view.instance(web.id).due


def test_a_halt_takes_a_successor_back_and_closes_the_link(machine):
    web = make(machine, "web", restart=mk.Restart("always", delay=30.0))
    with machine.connect("web") as link:
        crash(web)
        web.wait(timeout=PATIENCE)
        with pytest.raises(TimeoutError):
            link.recv(timeout=0.02)
        web.halt()
        with pytest.raises(mk.Closed):
            link.recv(timeout=PATIENCE)


def test_what_a_program_sent_before_it_left_arrives_at_the_successor(machine, tmp_path):
    web = make(machine, "web", restart=mk.Restart("always", delay=0.3), spec=script(tmp_path, """
def main(kernel):
    for message in kernel.messages():
        print(message.payload.decode(), flush=True)
        if message.payload == b"last":
            return 5
"""))  # fmt: skip
    link = machine.connect("web")
    crash(web)
    web.wait(timeout=PATIENCE)
    link.send(b"first")
    link.send(b"last")
    link.close()
    while web.epoch < 2 or web.pid:
        web.wait(timeout=PATIENCE)
        if web.last_end is not None and web.last_end.code == 5:
            break
    assert web.last_end.code == 5


def test_a_link_that_either_side_has_closed_is_not_kept(machine, tmp_path):
    web = make(machine, "web", spec=script(tmp_path, """
def main(kernel):
    for message in kernel.messages():
        message.link.close()
"""))  # fmt: skip
    census = lambda: machine._membership.request("census", {})["descriptors"]  # noqa: E731
    before = census()
    for _ in range(3):
        with machine.connect("web"):
            assert census() > before
    for _ in range(3):
        with machine.connect("web") as link:
            link.send(b"close it")
            with pytest.raises(mk.Closed):
                link.recv(timeout=PATIENCE)
    web.reboot()
    assert census() == before


# --- links between instances


@pytest.mark.parametrize("who", [["a"], ["b"], ["a", "b"]])
def test_a_chain_goes_on_whichever_of_its_instances_are_killed(machine, who):
    rng = random.Random(2)
    restart = mk.Restart("always", limit=1000, delay=0.0)
    make(machine, "b", restart=restart)
    make(machine, "a", "b", restart=restart)
    with machine.connect("a", capacity="64K") as link:
        stream = Stream(link)
        for _ in range(8):
            goal = stream.due + rng.randrange(600)
            while stream.due < goal:
                stream.step()
            for name in who:
                crash(machine[name])
        stream.finish()
        assert all(machine[name].epoch > 1 for name in who)


def test_who_asks_again_for_a_link_gets_the_one_that_was_taken_over(machine):
    make(machine, "b")
    a = make(machine, "a", "b")
    with machine.connect("a") as link:
        stream = Stream(link)
        stream.step()
        stream.finish()
        for _ in range(3):
            a.reboot()
            stream.step()
            stream.finish()
        assert len(machine.watched(machine["b"].id)[1].read().links) == 1
