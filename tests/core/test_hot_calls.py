"""The calls of which a program makes millions are the same by the extension and by cffi."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import threading

import pytest

import multikernel as mk
from multikernel import _core
from multikernel._core import calls
from tests.eventually import PATIENCE


def public(kind: type) -> list[str]:
    return [name for name in vars(kind) if not name.startswith("_")]


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


KINDS = ["SendCalls", "RecvCalls", "FanCalls", "MailboxCalls", "CastCalls", "QueueCalls", "ConnectionCalls"]


@pytest.mark.parametrize("kind", KINDS)
def test_both_halves_have_the_same_calls_signatures_and_docstrings(kind):
    if _core.HOT_CALLS != "extension":
        pytest.skip("this run is by cffi")
    here, there = getattr(_core, kind), getattr(calls, kind)
    assert public(here) == public(there)
    for name in public(there):
        assert inspect.getdoc(getattr(here, name)) == inspect.getdoc(getattr(there, name))
        parameters = [
            [
                (parameter.name, parameter.default)
                for parameter in inspect.signature(getattr(half, name)).parameters.values()
            ]
            for half in (here, there)
        ]
        assert parameters[0] == parameters[1], name


@pytest.mark.parametrize("half", ["extension", "cffi"])
def test_the_environment_chooses_the_half(half):
    code = """
import multikernel as mk
from multikernel import _core
ring = mk.Ring(4096)
with ring.sender() as tx, ring.receiver() as rx:
    tx.send(b"x")
    print(_core.HOT_CALLS, type(tx).send.__class__.__name__, rx.recv(timeout=5))
"""
    kind = {"extension": "method_descriptor", "cffi": "function"}[half]
    assert run(code, MULTIKERNEL_HOT_CALLS=half) == f"{half} {kind} b'x'"


def test_a_half_that_there_is_not_is_refused_by_name():
    code = "import multikernel as mk\ntry: mk.Ring\nexcept ImportError as error: print(error)"
    assert "'magic': there are 'extension' and 'cffi'" in run(code, MULTIKERNEL_HOT_CALLS="magic")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda tx, rx: tx.send(),
        lambda tx, rx: tx.send(b"x", 1.0, 2),
        lambda tx, rx: tx.send(b"x", timeout=1, timeout_=2),
        lambda tx, rx: tx.try_send(),
        lambda tx, rx: rx.recv(1.0, 2),
        lambda tx, rx: rx.recv(1.0, timeout=1.0),
        lambda tx, rx: rx.recv_many(),
        lambda tx, rx: tx.send(b"x", timeout="soon"),
        lambda tx, rx: rx.recv(timeout="soon"),
    ],
)
def test_arguments_that_do_not_fit_are_a_type_error(wrong):
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        tx.send(b"claimed")
        rx.recv(timeout=PATIENCE)
        with pytest.raises(TypeError):
            wrong(tx, rx)
        tx.send(timeout=PATIENCE, payload=b"by name")
        tx.send_many(messages=[b"too"])
        assert rx.recv_many(limit=5) == [b"by name", b"too"]


def test_an_end_may_be_used_by_one_thread_after_the_other():
    with mk.Ring(4096) as ring, ring.sender() as tx, ring.receiver() as rx:
        received: list[bytes] = []
        for number in range(20):
            work = threading.Thread(target=lambda n=number: tx.send(b"%d" % n))
            take = threading.Thread(target=lambda: received.append(rx.recv(timeout=PATIENCE)))
            for thread in (work, take) if number % 2 else ():
                thread.start()
                thread.join(PATIENCE)
            if not number % 2:
                tx.send(b"%d" % number)
                received.append(rx.recv(timeout=PATIENCE))
        assert received == [b"%d" % number for number in range(20)]


def test_two_threads_that_send_by_one_end_lose_nothing_that_was_not_refused():
    """The second at a time gets NotOwner; what was accepted arrives, each sender's in order."""
    with mk.Ring("64K") as ring, ring.sender() as tx, ring.receiver() as rx:
        accepted: list[list[bytes]] = [[], []]
        refused = [0, 0]

        def send(who: int) -> None:
            for number in range(5000):
                message = b"%d %d" % (who, number)
                try:
                    tx.send(message, timeout=PATIENCE)
                except mk.NotOwner:
                    refused[who] += 1
                else:
                    accepted[who].append(message)

        threads = [threading.Thread(target=send, args=(who,)) for who in range(2)]
        for thread in threads:
            thread.start()
        received: list[bytes] = []
        while any(thread.is_alive() for thread in threads) or len(received) < sum(map(len, accepted)):
            try:
                received += rx.recv_many(100, timeout=0.1)
            except mk.Timeout:
                pass
        for who in range(2):
            assert [message for message in received if message.startswith(b"%d " % who)] == accepted[who]
            assert len(accepted[who]) + refused[who] == 5000
