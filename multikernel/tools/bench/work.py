"""What is done with channels and timed: streams, batches, arrays and round trips. Every message is compared."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import cycle, islice
from typing import Any

from .channels import PREPARED, ArrayChannel, BatchChannel, Channel, Receive
from .sides import Cpus, Run, Tally, Work, measured

ELEMENT = 64
"""Bytes of an element of arrays."""

_TURNS = 3  # different arrays; odd, so that what stood in a slot one time round ago is never what should stand there


@contextmanager
def stream(cpus: Cpus, channel: Channel, messages: Sequence[Any]) -> Iterator[Work]:
    """A message a call. An operation is a message; their number is a multiple of that of `messages`."""

    @contextmanager
    def sending() -> Iterator[Run]:
        with closing(channel):
            send = channel.sender()

            def run(operations: int) -> Tally:
                for _ in range(operations // len(messages)):
                    for message in messages:
                        send(message)
                return Tally(operations)

            yield run

    @contextmanager
    def receiving() -> Iterator[Run]:
        with closing(channel):
            yield receive_all(channel.receiver(), messages)

    with closing(channel), measured((cpus[0], sending), (cpus[1], receiving)) as work:
        yield work


def receive_all(receive: Receive, messages: Sequence[Any]) -> Run:
    """Receive as many as there are operations, and compare each."""

    def run(operations: int) -> Tally:
        wrong = 0  # counted like this the right ones cost a comparison and nothing else
        for _ in range(operations // len(messages)):
            for message in messages:
                if receive() != message:
                    wrong += 1
        return Tally(operations - wrong)

    return run


@contextmanager
def batches(cpus: Cpus, channel: BatchChannel, messages: list[bytes]) -> Iterator[Work]:
    """All of `messages` a call. An operation is a message."""
    many = len(messages)

    @contextmanager
    def sending() -> Iterator[Run]:
        with closing(channel):
            send_many = channel.sender_many()

            def run(operations: int) -> Tally:
                for _ in range(operations // many):
                    send_many(messages)
                return Tally(operations)

            yield run

    @contextmanager
    def receiving() -> Iterator[Run]:
        with closing(channel):
            receive_many = channel.receiver_many()

            def run(operations: int) -> Tally:
                right = 0
                for _ in range(operations // many):
                    start = 0
                    while start < many:
                        found = receive_many(many - start)
                        expected = messages if len(found) == many else messages[start : start + len(found)]
                        right += len(found) if found == expected else 0
                        start += len(found)
                return Tally(right)

            yield run

    with closing(channel), measured((cpus[0], sending), (cpus[1], receiving)) as work:
        yield work


def elements(count: int) -> Any:
    """An array of `count` elements, each another one."""
    import numpy as np

    return np.arange(count * ELEMENT // 8, dtype=np.uint64).reshape(count, ELEMENT // 8)


@contextmanager
def arrays(cpus: Cpus, channel: ArrayChannel, batch: int = PREPARED) -> Iterator[Work]:
    """Arrays of `batch` elements a call. An operation is an element; their number is a multiple of `batch`.

    All bytes of the receiver's array are compared, below numpy: a comparison by numpy takes longer than its transport.
    """
    import numpy as np

    sent = [elements(batch) + turn for turn in range(_TURNS)]

    @contextmanager
    def sending() -> Iterator[Run]:
        with closing(channel):
            send = channel.array_sender()

            def run(operations: int) -> Tally:
                for array in islice(cycle(sent), operations // batch):
                    send(array)
                return Tally(operations)

            yield run

    @contextmanager
    def receiving() -> Iterator[Run]:
        with closing(channel):
            receive_into = channel.array_receiver()
            expected = [array.tobytes() for array in sent]
            filled = bytearray(sent[0].nbytes)
            room = np.frombuffer(filled, sent[0].dtype).reshape(sent[0].shape)

            def run(operations: int) -> Tally:
                right = 0
                for bytes_ in islice(cycle(expected), operations // batch):
                    start = receive_into(room)
                    while start < batch:
                        start += receive_into(room[start:])
                    right += batch if filled == bytes_ else 0
                return Tally(right)

            yield run

    with closing(channel), measured((cpus[0], sending), (cpus[1], receiving)) as work:
        yield work


@contextmanager
def round_trips(
    cpus: Cpus,
    out: Channel,
    back: Channel,
    messages: Sequence[Any],
    answers: Sequence[Any] | None = None,
    *,
    each: bool = False,
) -> Iterator[Work]:
    """A message there, and one back. An operation is a round trip.

    Args:
        cpus: of this side, which begins, and of the one that answers.
        out: there.
        back: and back.
        messages: sent in turn.
        answers: what must come back for each, and what the other side sends; None: what it has received.
        each: also say how many ns each took.
    """

    @contextmanager
    def asking() -> Iterator[Run]:
        with ExitStack() as opened:
            for channel in (out, back):
                opened.enter_context(closing(channel))
            pairs = list(zip(messages, answers or messages, strict=True))
            yield (_ask_each if each else _ask)(out.sender(), back.receiver(), pairs)

    @contextmanager
    def answering() -> Iterator[Run]:
        with ExitStack() as opened:
            for channel in (out, back):
                opened.enter_context(closing(channel))
            receive, send = out.receiver(), back.sender()
            yield _echo(receive, send) if answers is None else _answer(receive, send, messages, answers)

    with closing(out), closing(back), measured((cpus[0], asking), (cpus[1], answering)) as work:
        yield work


def _ask(send: Callable[[Any], object], receive: Receive, pairs: list[tuple[Any, Any]]) -> Run:
    def run(operations: int) -> Tally:
        wrong = 0
        for _ in range(operations // len(pairs)):
            for message, answer in pairs:
                send(message)
                if receive() != answer:
                    wrong += 1
        return Tally(operations - wrong)

    return run


def _ask_each(send: Callable[[Any], object], receive: Receive, pairs: list[tuple[Any, Any]]) -> Run:
    now = time.perf_counter_ns

    def run(operations: int) -> Tally:
        right, took = 0, array("Q")
        for _ in range(operations // len(pairs)):
            for message, answer in pairs:
                began = now()
                send(message)
                right += receive() == answer
                took.append(now() - began)
        return Tally(right, took)

    return run


def _echo(receive: Receive, send: Callable[[Any], object]) -> Run:
    def run(operations: int) -> Tally:
        for _ in range(operations):
            send(receive())
        return Tally(operations)

    return run


def _answer(receive: Receive, send: Callable[[Any], object], messages: Sequence[Any], answers: Sequence[Any]) -> Run:
    def run(operations: int) -> Tally:
        wrong = 0
        for _ in range(operations // len(messages)):
            for message, answer in zip(messages, answers, strict=True):
                if receive() != message:
                    wrong += 1
                send(answer)
        return Tally(operations - wrong)

    return run
