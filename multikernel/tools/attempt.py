"""Try something in a child that may die of it, change itself, or hang.

A probe is a plain function that runs in a forked child and returns what it found. Whatever it does to its process
ends with that process; whatever it waits for, it waits for no longer than its time limit.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

_GRACE = 1.0  # seconds that a killed child gets to be gone; one that the kernel holds on to is left to it


class Status(StrEnum):
    """How a facility is on this system."""

    OK = "ok"
    LIMITED = "limited"  # there, but not all of it
    MISSING = "missing"


@dataclass(frozen=True)
class Answer:
    """What the system answered when something was tried."""

    status: Status
    text: str


class Refused(Exception):
    """A call that a probe cannot do without was refused; the message names the call and the errno."""


@contextlib.contextmanager
def call(name: str) -> Iterator[None]:
    """Turn an `OSError` of the block into a `Refused` that says it was `name` that answered so."""
    try:
        yield
    except OSError as error:
        raise Refused(f"{name}: {error_name(error.errno)} ({error.strerror})") from error


def checked(name: str, result: int) -> int:
    """`result` of a call into the C core if it is not negative; else `Refused`, from the negated errno that it is."""
    if result < 0:
        raise Refused(f"{name}: {error_name(-result)} ({os.strerror(-result)})")
    return result


def error_name(number: int | None) -> str:
    """`EPERM` for 1, and so on."""
    return errno.errorcode.get(number or 0, f"errno {number}")


def attempt(probe: Callable[[], Answer], seconds: float, undo: Callable[[int], None] | None = None) -> Answer:
    """Run `probe` in a child for at most `seconds`.

    Args:
        probe: what to try.
        seconds: after which the child is killed.
        undo: called when the child is gone, however it went, with the pid that it had: takes away what a killed one
            has left.

    Returns:
        What it answered. A probe that is refused something, dies of it or does not come back has the status
        `missing`, and the text says which.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_the_child(probe, writer, seconds)
    os.close(writer)
    try:
        said, ended = _read(reader, time.monotonic() + seconds)
    finally:
        how = _end(pid, reader)
        os.close(reader)
        if undo is not None:
            undo(pid)
    if not ended:
        return Answer(Status.MISSING, f"no answer within {seconds:g} s")
    if os.WIFSIGNALED(how):
        return Answer(Status.MISSING, f"the try was killed by {signal.Signals(os.WTERMSIG(how)).name}")
    if not said:  # a Ctrl-C that only the child has seen so far
        return Answer(Status.MISSING, "the try was interrupted")
    document = json.loads(said)
    return Answer(Status(document["status"]), document["text"])


def _end(pid: int, reader: int) -> int:
    """See that the child is gone, and return how it went. One that has answered has closed its pipe and is ending."""
    _, ended = _read(reader, time.monotonic())
    if not ended:
        os.kill(pid, signal.SIGKILL)
        _, ended = _read(reader, time.monotonic() + _GRACE)
    if not ended:  # the kernel holds on to it: it is no use waiting
        return 0
    return os.waitpid(pid, 0)[1]


def _be_the_child(probe: Callable[[], Answer], writer: int, seconds: float) -> None:
    """Answer into the pipe and end, without a word or a trace of the program this is a copy of."""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(seconds) + 2)  # should the parent be killed meanwhile
        try:
            answer = probe()
        except Refused as refused:
            answer = Answer(Status.MISSING, str(refused))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            answer = Answer(Status.MISSING, f"{type(error).__name__}: {error}")
        os.write(writer, json.dumps({"status": answer.status, "text": answer.text}).encode())
    finally:
        os._exit(0)


def _read(reader: int, deadline: float) -> tuple[bytes, bool]:
    """All that comes until the deadline, and whether the other end was closed by then."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    said = b""
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        chunk = os.read(reader, 65536)
        if not chunk:
            return said, True
        said += chunk
    return said, False
