"""What the demo is compared to: the same files, counted by the same function.

`plain` is one process; `pool` is `multiprocessing.Pool(1)`, where the program reads and a worker parses.

Each runs in an interpreter of its own, pinned as the instances were, so that neither the program's threads nor its
memory are in the way. It prints the bytes done now and then, a number a line, and at the end one JSON document.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import click

from multikernel.kernel.process import die_with

from .counting import Counts, Findings, count
from .sources import Source, Unreadable, read, scan

TELL_EVERY = 0.1  # seconds

Pair = tuple[Source, Counts]
Peer = Callable[[list[Source], tuple[int, ...]], AbstractContextManager[Iterable[Pair]]]
"""Takes the files, and the cpus: the first to read on, the last to parse on. What it yields does the work."""


@contextmanager
def plain(sources: list[Source], cpus: tuple[int, ...]) -> Iterator[Iterable[Pair]]:
    """One process: read a file, parse it, and again."""
    os.sched_setaffinity(0, cpus[-1:])
    yield ((source, _count(_content(source))) for source in sources)


@contextmanager
def pool(sources: list[Source], cpus: tuple[int, ...]) -> Iterator[Iterable[Pair]]:
    """This process reads, on the first cpu, and one worker parses, on the last."""
    os.sched_setaffinity(0, cpus[:1])
    with multiprocessing.get_context("fork").Pool(1, _become_worker, (os.getpid(), cpus[-1:])) as workers:
        workers.apply(_count, (b"",))  # it is there and warm before the time runs
        yield zip(sources, workers.imap(_count, map(_content, sources)), strict=True)


PEERS: dict[str, Peer] = {"plain": plain, "pool": pool}


def main(peer: str, directory: str, cpus: str, parent: str) -> None:
    """Run one of PEERS over a directory. cpus: numbers with commas between, parent: the pid of who started this."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C ends this process silently; its parent speaks for it
    die_with(int(parent))
    numbers = tuple(int(cpu) for cpu in cpus.split(","))
    sources = scan(directory)
    findings = Findings()
    with PEERS[peer](sources, numbers) as pairs:
        seconds = _timed(pairs, findings)
    click.echo(json.dumps(findings.to_json() | {"seconds": seconds}))


def _timed(pairs: Iterable[Pair], findings: Findings) -> float:
    """Add up; the seconds from the first file's start to the last one's end, without what goes before and after."""
    began = told = time.perf_counter()
    for source, counts in pairs:
        findings.add(source.name, counts)
        now = time.perf_counter()
        if now - told >= TELL_EVERY:
            told = now
            click.echo(str(findings.size))
    return time.perf_counter() - began


def _content(source: Source) -> bytearray | str:
    """The content, or why there is none."""
    try:
        return read(source)
    except Unreadable as error:
        return str(error)


def _count(content: bytes | bytearray | str) -> Counts:
    return Counts(0, reason=content) if isinstance(content, str) else count(content)


def _become_worker(parent: int, cpus: tuple[int, ...]) -> None:
    die_with(parent)
    os.sched_setaffinity(0, cpus)


if __name__ == "__main__":
    main(*sys.argv[1:])
