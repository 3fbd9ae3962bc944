"""What an instance reads as its standard input: typed by one at a time, and nobody's fault where nothing is typed."""

from __future__ import annotations

import os
import select

import pytest

import multikernel as mk
from tests.eventually import PATIENCE
from tests.shm.idle import check_idle

READS = """
    import sys
    def main(kernel):
        for message in kernel.messages():
            break
        for line in sys.stdin:
            message.reply(line.encode())
            if line == "bye\\n":
                return 0
"""


def test_what_is_written_is_what_the_instance_reads(boot, web):
    link = boot(READS)
    link.send(b"begin")
    with web.attach() as typed:
        typed.write("one\nzwei ü\n".encode())
        assert link.recv(timeout=PATIENCE).payload == b"one\n"
        assert link.recv(timeout=PATIENCE).payload == "zwei ü\n".encode()
        typed.write(b"parts of ")
        typed.write(b"a line\n")
        assert link.recv(timeout=PATIENCE).payload == b"parts of a line\n"
    with web.attach() as typed:  # its end was not the end of what the instance reads
        typed.write(b"bye\n")
    assert web.wait(timeout=PATIENCE).code == 0


def test_input_prompts_and_waits_without_any_work(boot, web, console):
    link = boot("""
        def main(kernel):
            for message in kernel.messages():
                message.reply(b"asking")
                name = input("who? ")
                print(f"hello {name}")
                return 0
    """)
    assert link.request(b"x", timeout=PATIENCE).payload == b"asking"
    check_idle(web.pid)
    with web.attach() as typed:
        typed.write(b"me\n")
    assert web.wait(timeout=PATIENCE).code == 0
    assert console() == "who? hello me\n"


def test_one_at_a_time_can_attach(machine, boot, web):
    boot(READS)
    with mk.Machine.attach(machine.name) as other:
        typed = web.attach()
        for who in (web, other["web"]):
            with pytest.raises(mk.ResourceError, match=f"has one who types already: process {os.getpid()}") as caught:
                who.attach()
            assert caught.value.pid == os.getpid()
        typed.close()
        typed.close()
        second = other["web"].attach()
    web.attach().close()  # who has left the machine has detached
    with pytest.raises(mk.Closed):
        typed.try_write(b"x")
    second.close()


def test_an_instance_that_does_not_run_has_nobody_to_type_to(boot, web):
    boot(READS)
    with web.attach() as typed:
        web.kill()
        with pytest.raises(mk.Closed, match="the incarnation that was attached to has ended"):
            typed.write(b"x")
    with pytest.raises(mk.StateError, match="cannot attach to 'web': it is loaded"):
        web.attach()
    web.boot()
    web.attach().close()


def test_what_is_not_read_fills_a_pipe_and_no_more(boot, web):
    link = boot(READS)
    with web.attach() as typed:
        with pytest.raises(mk.Timeout, match="has read nothing within") as caught:
            typed.write(b"x\n" * 100_000, timeout=0.01)
        assert 4096 <= caught.value.sent <= 1 << 20
        assert typed.try_write(b"y") == 0
        link.send(b"begin")
        assert link.recv(timeout=PATIENCE).payload == b"x\n"
        assert select.select([], [typed], [], PATIENCE)[1]
    web.kill()


def test_the_end_of_who_types_is_not_the_end_of_the_input(boot, web):
    """It holds the pipe itself: a read does not end because others do."""
    link = boot("""
        import select
        def main(kernel):
            for message in kernel.messages():
                readable, _, _ = select.select([0], [], [], 0.05)
                message.reply(b"%d" % len(readable))
    """)
    web.attach().close()
    assert link.request(b"x", timeout=PATIENCE).payload == b"0"


def test_a_child_of_the_instance_reads_the_same_input(boot, web):
    link = boot("""
        import subprocess
        def main(kernel):
            for message in kernel.messages():
                message.reply(subprocess.run(["head", "-n1"], capture_output=True).stdout)
    """)
    with web.attach() as typed:
        typed.write(b"for the child\n")
        assert link.request(b"x", timeout=PATIENCE).payload == b"for the child\n"
