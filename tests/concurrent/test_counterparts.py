"""What a call does is what it does in the class that ours stands in for: the same call is made on both."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import multikernel as mk

Call = Callable[[Any], Any]


def outcome(call: Call, of: Any) -> Any:
    """What comes of a call, so that two can be compared: its value or the type of its error."""
    try:
        value = call(of)
    except Exception as error:  # noqa: BLE001 - whatever the counterpart raises is what ours has to raise
        return type(error)
    return value


QUEUE_CALLS: dict[str, Call] = {
    "put": lambda q: q.put(1),
    "put_nowait": lambda q: q.put_nowait(1),
    "put without blocking": lambda q: q.put(1, False),
    "put by a time that is over": lambda q: q.put(1, True, -1),
    "put by no time": lambda q: q.put(1, timeout="soon"),
    "get_nowait": lambda q: q.get_nowait(),
    "get without blocking": lambda q: q.get(block=False),
    "get by a time that is over": lambda q: q.get(True, -1),
    "get in time": lambda q: q.get(timeout=0.001),
    "empty": lambda q: q.empty(),
    "full": lambda q: q.full(),
    "qsize": lambda q: q.qsize(),
    "close": lambda q: q.close(),
    "join_thread": lambda q: q.join_thread(),
    "cancel_join_thread": lambda q: q.cancel_join_thread(),
}


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("name", QUEUE_CALLS)
def test_a_queue_does_what_its_counterpart_does(name, closed):
    found = []
    for module in (multiprocessing, mk):
        q = module.Queue(2)
        if closed:
            q.close()
        found.append(outcome(QUEUE_CALLS[name], q))
        q.close()
        q.join_thread()
    assert found[1] == found[0]


@pytest.mark.parametrize("name", ["put_nowait", "put by a time that is over", "full", "qsize", "empty"])
def test_a_full_queue_does_what_its_counterpart_does(name):
    found = []
    for module in (multiprocessing, mk):
        q = module.Queue(1)
        q.put(1)
        waited = q._poll if module is multiprocessing else lambda _: True
        assert waited(20.0)  # there it is on its way when `put` returns
        found.append(outcome(QUEUE_CALLS[name], q))
        q.get()
        q.close()
        q.join_thread()
    assert found[1] == found[0]


SIMPLE_CALLS: dict[str, Call] = {
    "put": lambda q: q.put(1),
    "get": lambda q: q.get(),
    "empty": lambda q: q.empty(),
    "close": lambda q: q.close(),
    "qsize": lambda q: q.qsize(),
    "put_nowait": lambda q: q.put_nowait(1),
    "get by a time": lambda q: q.get(timeout=1),
}


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("name", SIMPLE_CALLS)
def test_a_simple_queue_does_what_its_counterpart_does(name, closed):
    found = []
    for module in (multiprocessing, mk):
        q = module.SimpleQueue()
        q.put("something")
        if closed:
            q.close()
        found.append(outcome(SIMPLE_CALLS[name], q))
        q.close()
    assert found[1] == found[0]


PIPE_CALLS: dict[str, Call] = {
    "send": lambda end: end.send(1),
    "recv": lambda end: end.recv(),
    "send_bytes": lambda end: end.send_bytes(b"1"),
    "send_bytes from behind the end": lambda end: end.send_bytes(b"123", 4),
    "send_bytes of more than there is": lambda end: end.send_bytes(b"123", 0, 4),
    "recv_bytes": lambda end: end.recv_bytes(),
    "recv_bytes of at most": lambda end: end.recv_bytes(3),
    "recv_bytes of less than nothing": lambda end: end.recv_bytes(-1),
    "recv_bytes_into": lambda end: end.recv_bytes_into(bytearray(100)),
    "recv_bytes_into what is too short": lambda end: end.recv_bytes_into(bytearray(1)),
    "poll": lambda end: end.poll(),
    "poll in time": lambda end: end.poll(0.001),
    "close": lambda end: end.close(),
    "closed": lambda end: end.closed,
    "readable": lambda end: end.readable,
    "writable": lambda end: end.writable,
    "fileno": lambda end: end.fileno() * 0,
    "enter": lambda end: end.__enter__() is end,
}

STATES = ["open", "closed", "other end closed", "something there", "something there and closed behind it"]


CASES = [
    (name, state)
    for name in PIPE_CALLS
    for state in STATES
    if not (state == "open" and name.startswith("recv"))  # waits for ever, there and here
]


@pytest.mark.parametrize("duplex", [True, False])
@pytest.mark.parametrize(("name", "state"), CASES)
def test_both_ends_of_a_pipe_do_what_their_counterparts_do(name, state, duplex):
    for side in (0, 1):
        found = []
        for module in (multiprocessing, mk):
            ends = module.Pipe(duplex)
            with ends[0], ends[1]:
                end, other = ends[side], ends[1 - side]
                if state.startswith("something there") and other.writable:
                    other.send_bytes(pickle.dumps("something"))
                if state == "closed":
                    end.close()
                if state in ("other end closed", "something there and closed behind it"):
                    other.close()
                if state.startswith("something there") and not other.writable and name.startswith("recv"):
                    continue  # this side only sends, and the other has nothing to be received
                found.append(outcome(PIPE_CALLS[name], end))
        assert found[1:] == found[:1], f"side {side}"
