"""Our benches: each is a list of cases, of one work against several others. `benches/compare` adds more others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from . import instances
from .channels import PREPARED, BatchChannel, Channel, RingArrays, RingChannel, prepared
from .compare import Case, Contender
from .plain import Eventfd, MpPipe, OsPipe, PollingMpPipe, PollingPipe
from .work import ELEMENT, arrays, batches, round_trips, stream

OURS = "multikernel"

Channels: TypeAlias = Mapping[str, Callable[[int], Channel]]
"""What makes a channel for messages of a size, by name."""

BatchChannels: TypeAlias = Mapping[str, Callable[[int], BatchChannel]]

SIZES = (8, 64, 1024)
PLAIN: dict[str, Any] = {"os.pipe": OsPipe, "multiprocessing.Pipe": MpPipe}
POLLING: Channels = {"os.pipe": PollingPipe, "multiprocessing.Pipe": PollingMpPipe}


def message(size: int, others: Channels = PLAIN) -> Case:
    """A stream, one message a call."""

    def contender(name: str, make: Callable[[int], Channel]) -> Contender:
        return Contender(name, lambda cpus: stream(cpus, make(size), prepared(size)))

    return Case(f"message of {size} B", contender(OURS, RingChannel), _each(contender, others))


def batch(size: int, others: BatchChannels = PLAIN) -> Case:
    """A stream of lists of bytes, PREPARED a call."""

    def contender(name: str, make: Callable[[int], BatchChannel]) -> Contender:
        return Contender(name, lambda cpus: batches(cpus, make(size), prepared(size)))

    return Case(f"message of {size} B, {PREPARED} a call", contender(OURS, RingChannel), _each(contender, others))


def array(count: int = PREPARED) -> Case:
    """A stream of numpy arrays of `count` elements, 64 bytes each."""

    def contender(name: str, make: Callable[[int], Any], size: int) -> Contender:
        return Contender(name, lambda cpus: arrays(cpus, make(size), count), least=count)

    ours = contender(OURS, RingArrays, ELEMENT // 8)
    others = tuple(contender(name, make, ELEMENT) for name, make in PLAIN.items())
    return Case(f"array element of {ELEMENT} B, {count} a call", ours, others)


def spinning(size: int, others: Channels = POLLING) -> Case:
    """There and back, both sides spinning."""
    ours = partial(RingChannel, wait="spin")
    return Case(f"spinning round trip, {size} B", echo(OURS, ours, size), _each(partial(echo, size=size), others))


def blocking(size: int, others: Channels = PLAIN) -> Case:
    """There and back, both sides asleep until something comes."""
    ours = partial(RingChannel, wait="park")
    return Case(
        f"blocking round trip, {size} B",
        echo(OURS, ours, size),
        (*_each(partial(echo, size=size), others), echo("os.eventfd", Eventfd, size, [1] * PREPARED)),
    )


def interrupt() -> Case:
    """An IPI there, its handler's answer back."""
    others = {
        "os.pipe": instances.pipe_interrupts,
        "os.eventfd": instances.eventfd_interrupts,
        "multiprocessing.Semaphore": instances.semaphore_interrupts,
        "signal": instances.signal_interrupts,
    }
    return Case("IPI and its handler's answer", Contender(OURS, instances.ipi), _each(Contender, others))


def boot() -> Case:
    """From the call that starts it to its first reply."""
    others = {
        "os.fork and os.pipe": instances.fork_and_pipe,
        "multiprocessing, forkserver with preload": instances.preloaded_forkserver,
        "multiprocessing, forkserver": instances.forkserver,
        "multiprocessing, spawn": instances.spawn,
    }
    return Case(
        "boot to first reply",
        Contender(OURS, instances.boot, least=1),
        _each(partial(Contender, least=1), others),
        instances.starting_seconds,
    )


def echo(name: str, make: Callable[[int], Channel], size: int, messages: list[Any] | None = None) -> Contender:
    """Somebody whose channels, one a direction, carry `messages` there and back; None: bytes of that size."""
    sent = messages or prepared(size)
    return Contender(
        name,
        lambda cpus: round_trips(cpus, make(size), make(size), sent),
        each=lambda cpus: round_trips(cpus, make(size), make(size), sent, each=True),
    )


def _each(contender: Callable[..., Contender], others: Mapping[str, Any]) -> tuple[Contender, ...]:
    return tuple(contender(name, make) for name, make in others.items())


BENCHES: dict[str, tuple[str, Callable[[], list[Case]]]] = {
    "message": ("a stream of bytes, one message a call", lambda: [message(size) for size in SIZES]),
    "batch": ("a stream of lists of bytes, 256 a call", lambda: [batch(size) for size in SIZES]),
    "arrays": ("a stream of numpy arrays, 256 elements of 64 bytes a call", lambda: [array()]),
    "spinning": ("there and back, both sides spinning", lambda: [spinning(8), spinning(64)]),
    "blocking": ("there and back, both sides asleep until something comes", lambda: [blocking(8), blocking(64)]),
    "ipi": ("an interrupt to an instance, its handler's answer back", lambda: [interrupt()]),
    "boot": ("from the call that boots an instance to its first reply", lambda: [boot()]),
}
"""What each is about, and its cases, by the name that `multikernel bench` takes."""
