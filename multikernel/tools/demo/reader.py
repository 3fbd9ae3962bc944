"""The image of `reader`: reads every file, right into the link to `parser`, and adds up what comes back.

Some files are under way at any time, so that `parser` always has the next one. The program asks by IPI how far it is.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from multikernel.errors import Closed, Timeout

from .counting import Counts, Findings
from .sources import Source, Unreadable, capacity_for, opened, read_into, scan
from .words import (
    FILE,
    OFFSET,
    PARSER,
    PIECE,
    PROGRESS_VECTOR,
    RESULT,
    START,
    Progress,
    file_prefix,
    unpack_counts,
)

if TYPE_CHECKING:
    from multikernel import Kernel, Message

IN_FLIGHT = 4
"""Files that are with `parser` at a time: the one that it parses, and the next ones."""

LOOK_AGAIN = 0.5  # seconds without a message after which to see whether parser is still there


class _UnderWay(NamedTuple):
    number: int
    source: Source
    sent_ns: int


class Job:
    """One directory's files on their way through `parser`.

    Args:
        kernel: reader's own.
        start: the message that asked for it; its replies tell how far it is.
    """

    def __init__(self, kernel: Kernel, start: Message) -> None:
        self._start = start
        self._sources = scan(json.loads(bytes(start.payload))["directory"])
        self._total_size = sum(source.size for source in self._sources)
        self._parser = kernel.connect(PARSER, capacity=capacity_for(self._sources))
        self._todo = enumerate(self._sources)
        self._under_way: deque[_UnderWay] = deque()
        self._findings = Findings()
        self._times_ns: list[int] = []
        self._began = time.perf_counter()
        self._seconds = 0.0
        self._finished = False
        self._result = b""
        self._send_more()

    def is_from_parser(self, message: Message) -> bool:
        """Whether a message is a reply of `parser`."""
        return message.sender == self._parser.peer_id

    def check_parser(self) -> None:
        """Closed, if `parser` is gone before the work is done."""
        if self._parser.closed and not self._finished:
            raise Closed(f"{PARSER} is gone in the middle of the work")

    def take(self, reply: Message) -> None:
        """Add what `parser` found in a file, and send the next one. Replies come in the order of what was sent."""
        now = time.perf_counter_ns()
        number, counts = unpack_counts(reply.payload)
        expected = self._under_way.popleft()
        if number != expected.number:
            raise ValueError(f"parser replied to file {number}, and {expected.number} was next")
        self._times_ns.append(now - expected.sent_ns)
        self._findings.add(expected.source.name, counts)
        self._send_more()

    def tell(self) -> None:
        """Tell the program how far the work is. One that does not look is not waited for."""
        totals = self._findings.totals
        progress = Progress(
            totals.files, self._findings.size, len(self._sources), self._total_size, finished=self._finished
        )
        with contextlib.suppress(Timeout):
            self._start.reply(progress.pack(), timeout=0)

    def piece(self, offset: int) -> bytes:
        """The result from byte `offset` on, as JSON; empty at its end."""
        return self._result[offset : offset + PIECE]

    def _send_more(self) -> None:
        while len(self._under_way) < IN_FLIGHT:
            number, source = next(self._todo, (0, None))
            if source is None:
                break
            try:
                self._send(number, source)
            except Unreadable as error:
                self._findings.add(source.name, Counts(0, reason=str(error)))
        if not self._under_way and not self._finished:
            self._finish()

    def _send(self, number: int, source: Source) -> None:
        """Read a file to where `parser` will see it: into room that is reserved in the link."""
        prefix = file_prefix(number, source.name)
        with (
            opened(source) as (file, size),
            self._parser.reserve(len(prefix) + size, subtype=FILE) as room,
        ):
            room[: len(prefix)] = prefix
            with room[len(prefix) :] as content:
                read_into(file, content)
        self._under_way.append(_UnderWay(number, source, time.perf_counter_ns()))

    def _finish(self) -> None:
        self._seconds = time.perf_counter() - self._began
        times = sorted(self._times_ns)
        result = self._findings.to_json() | {
            "seconds": self._seconds,
            "median_ns": times[len(times) // 2] if times else None,
            "p99_ns": times[-(len(times) // 100) - 1] if times else None,
            "in_flight": IN_FLIGHT,
            "link_capacity": capacity_for(self._sources),
        }
        self._result = json.dumps(result).encode()
        self._finished = True
        self.tell()


def main(kernel: Kernel) -> None:
    """Serve until the host asks for a halt."""
    job: Job | None = None

    @kernel.on_ipi(PROGRESS_VECTOR)
    def _(_vector: int, _count: int) -> None:
        if job is not None:
            job.check_parser()
            job.tell()

    while not kernel.halting:
        for message in kernel.messages(timeout=LOOK_AGAIN):
            if job is not None and job.is_from_parser(message):
                job.take(message)
            elif message.subtype == START and job is None:
                job = Job(kernel, message)
            elif message.subtype == RESULT and job is not None:
                message.reply(job.piece(*OFFSET.unpack(message.payload)))
        if job is not None:
            job.check_parser()
