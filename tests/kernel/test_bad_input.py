"""What an image asks for and cannot have: told at once, where it was asked, and not when it is due or by the host."""

from __future__ import annotations

import os
import signal

import pytest

import multikernel as mk
from tests.eventually import PATIENCE

ASKS = """
import json, math

def main(kernel):
    for message in kernel.messages():
        try:
            {ask}
        except Exception as error:
            message.reply(f"{{type(error).__name__}}: {{error}}".encode())
        else:
            message.reply(b"nothing was wrong")
"""


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ("kernel.every(1, 5)", "TypeError: a timer calls a function, not int"),
        ("kernel.after(1, None)", "TypeError: a timer calls a function, not NoneType"),
        ("kernel.on_ipi(64)(print)", "ValueError: vector 64: there are 0 to 63"),
        ("kernel.on_ipi('5')(print)", "TypeError: "),
        ("kernel.on_ipi(5)(5)", "TypeError: a handler is a function of vector and count, not int"),
        ("message.link.on_ipi(5, None)", "TypeError: a handler is a function of vector and count, not NoneType"),
        ("kernel.connect('web', timeout=-1)", "ValueError: a time to wait is a number of seconds from 0 up, not -1"),
        ("kernel.connect('web', timeout='1')", "TypeError: a time is a number of seconds, not str"),
        ("kernel.connect('web', capacity='1T')", "ValueError: capacity 1099511627776: at most 68719476736 bytes"),
        ("kernel.connect('nobody', timeout=math.inf)", "NotFound: no instance 'nobody'"),
        ("kernel.memory('table', 0)", "ValueError: a memory of 0 bytes: there can be 1 to"),
        ("kernel.log(5)", "TypeError: what is logged is text, not int"),
        ("kernel.log('x', level=8)", "ValueError: level 8: syslog has 0 (emergency) to 7 (debug)"),
        ("message.link.proxy(5)", "TypeError: a service is a class with methods to be called, not int"),
    ],
)
def test_bad_input_is_an_error_where_it_was_given(boot, web, ask, said):
    link = boot(ASKS.format(ask=ask))
    assert bytes(link.request(b"ask", timeout=PATIENCE).payload).decode().startswith(said)
    assert bytes(link.request(b"ask", timeout=PATIENCE).payload).decode().startswith(said)
    assert web.halt(timeout=PATIENCE).reason == "halted"


def test_a_connect_without_a_limit_waits_for_a_host_that_is_held_up(boot, machine):
    link = boot(ASKS.format(ask="kernel.connect('nobody', timeout=math.inf)"))
    os.kill(machine.pid, signal.SIGSTOP)
    try:
        link.send(b"ask")
        with pytest.raises(mk.Timeout):
            link.recv(timeout=0.1)
    finally:
        os.kill(machine.pid, signal.SIGCONT)
    assert link.recv(timeout=PATIENCE).payload.startswith(b"NotFound: no instance 'nobody'")
