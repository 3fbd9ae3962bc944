"""What runs under strace: `python -m benches.compare.traced CPU CPU NAME MESSAGES`, without anything around it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing

from benches.compare import peers
from benches.compare.peers import Peers
from multikernel.tools.bench.cases import OURS
from multikernel.tools.bench.channels import PREPARED, RingArrays, RingChannel, prepared
from multikernel.tools.bench.sides import Wrong
from multikernel.tools.bench.work import elements, stream

SIZE = 64  # bytes


def one_a_call(turns: int) -> None:
    """`send`, then `recv`."""
    messages = prepared(SIZE)
    with closing(RingChannel(SIZE)) as ring:
        send, receive = ring.sender(), ring.receiver()
        for _ in range(turns):
            for message in messages:
                send(message)
            _check(sum(receive() == message for message in messages))


def many_a_call(turns: int) -> None:
    """`send_many`, then `recv_many`."""
    messages = prepared(SIZE)
    with closing(RingChannel(SIZE)) as ring:
        send, receive = ring.sender_many(), ring.receiver_many()
        for _ in range(turns):
            send(messages)
            _check(PREPARED * (receive(PREPARED) == messages))


def in_place(turns: int) -> None:
    """`reserve`, then `peek`."""
    messages = prepared(SIZE)
    with closing(RingChannel(SIZE)) as ring:
        for _ in range(turns):
            right = 0
            for message in messages:
                with ring.tx.reserve(SIZE) as room:
                    room[:] = message
            for message in messages:
                with ring.rx.peek() as view:
                    right += view == message
            _check(right)


def arrays(turns: int) -> None:
    """`send_many` and `recv_into` of arrays."""
    sent = elements(PREPARED)
    room = sent.copy()
    with closing(RingArrays(sent.shape[1])) as ring:
        send, receive_into = ring.array_sender(), ring.array_receiver()
        for _ in range(turns):
            send(sent)
            room.fill(0)
            _check(receive_into(room) * bool((room == sent).all()))


FAST_PATHS: dict[str, Callable[[int], None]] = {
    "one a call": one_a_call,
    "256 a call": many_a_call,
    "in place": in_place,
    "numpy arrays": arrays,
}
"""Both ends in one process, in turn: there is always room, and what is received is there."""


def _check(right: int) -> None:
    if right != PREPARED:
        raise Wrong(f"{right} of {PREPARED} messages were right")


def main(first: str, second: str, name: str, messages: str) -> None:
    """Run one of FAST_PATHS, or a stream of one of `peers.STREAMS` or of ours."""
    if name in FAST_PATHS:
        FAST_PATHS[name](int(messages) // PREPARED)
        return
    make = RingChannel if name == OURS else Peers().of({name: peers.STREAMS[name]})[name]
    with stream((int(first), int(second)), make(SIZE), prepared(SIZE)) as work:
        work(int(messages))


if __name__ == "__main__":
    main(*sys.argv[1:])
