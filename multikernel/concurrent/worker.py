"""A worker of a `CoreExecutor`: a process on a core of its own that does one task after the other."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from socket import socket
from types import FrameType
from typing import TYPE_CHECKING, Any

from multikernel.errors import Closed

from . import parcels
from .objects import from_record, length_of, to_record
from .tasks import (
    ANSWER,
    APPLY,
    CALL,
    ERROR,
    HEAD,
    LARGEST,
    LEFT,
    PARCEL,
    TASK,
    UNFIT,
    VALUE,
    apply_each,
    described,
    error_body,
)

if TYPE_CHECKING:
    from multikernel.shm.claims import Claims
    from multikernel.shm.receiver import Receiver
    from multikernel.shm.sender import Sender

    from .lifeline import Lifeline

BATCH = 256
"""Most tasks taken out of the ring at once. Those that are not begun can still be taken back."""


@dataclass
class Post:
    """What a worker gets."""

    cpu: int
    tasks: Receiver
    answers: Sender
    parcels: socket
    claims: Claims
    lifeline: Lifeline
    interrupts: bool  # whether a Ctrl-C gets through to the program
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]

    def close(self) -> None:
        """Close what is in it."""
        self.tasks.close()
        self.answers.close()
        self.parcels.close()
        self.claims.close()


def main(post: Post) -> None:
    """Be a worker, until told to end or until whoever started it is gone."""
    worker = _Worker(post)
    pin(post.cpu)
    signal.set_wakeup_fd(-1)  # a fork's copy of an event loop's would report our signals there
    try:
        post.lifeline.hold()
    except OSError:
        pass  # then the end of the program is noticed at the next look for tasks
    try:
        if worker.begin():
            worker.serve()
    except Closed:
        pass  # the program is gone: nobody is left to be told
    finally:
        post.close()


def pin(cpu: int) -> None:
    """Put this process on one cpu, with the threads that imports have started already."""
    for thread in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(thread), {cpu})
        except ProcessLookupError:
            continue  # it has ended


class _Worker:
    def __init__(self, post: Post) -> None:
        self._post = post
        self._interruptible = False
        self._functions: dict[bytes, Callable[..., Any]] = {}
        # Python's own handler raises wherever it likes; a Ctrl-C is for the task, if there is one. Any other handler is
        # the program's, and stays.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)
        if post.interrupts:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._interruptible:
            self._interruptible = False
            raise KeyboardInterrupt

    def begin(self) -> bool:
        """Run the initializer. Whether it ended well."""
        if self._post.initializer is None:
            return True
        try:
            self._post.initializer(*self._post.initargs)
        except BaseException as error:  # noqa: BLE001 - it breaks the pool, which raises it
            text = described(error).encode(errors="backslashreplace")
            self._post.answers.send(ANSWER.pack(0, UNFIT, 0.0) + text[-LARGEST:])
            return False
        return True

    def serve(self) -> None:
        """Do tasks until an empty record comes."""
        receive, begin, send = self._post.tasks.recv_many, self._post.claims.begin, self._post.answers.send
        while True:
            for record in receive(BATCH):
                if not record:
                    return
                number, kind, length = TASK.unpack_from(record)
                if begin(number):
                    send(self._answer(number, kind, length, record))
                else:
                    if kind & PARCEL:
                        parcels.receive(self._post.parcels, number)  # so that it does not lie in the way of others
                    send(ANSWER.pack(number, LEFT, 0.0))

    def _answer(self, number: int, kind: int, length: int, record: bytes) -> bytes:
        """Do one task; its answer as a record. Any exception becomes an answer, too."""
        began = time.perf_counter()
        try:
            try:
                self._interruptible = True
                value = self._do(number, kind, length, record)
            finally:
                self._interruptible = False
            took = time.perf_counter() - began
            return self._record(number, VALUE, took, to_record(value))
        except Closed as error:
            if self._post.answers.closed:
                raise
            failure: BaseException = error
        except BaseException as error:  # noqa: BLE001 - the future raises it
            failure = error
        took = time.perf_counter() - began
        try:
            return self._record(number, ERROR, took, error_body(failure))
        except Exception as error:  # noqa: BLE001 - it could not be pickled; that can
            return self._record(number, ERROR, took, error_body(error))

    def _do(self, number: int, kind: int, length: int, record: bytes) -> Any:
        body: bytes | memoryview
        if kind & PARCEL:
            body = parcels.receive(self._post.parcels, number)
            kind &= ~PARCEL
        else:
            body = record[HEAD:]
        copy = type(body) is bytes
        if kind == CALL:
            function, args, kwargs = from_record(body, copy=copy)
            del body, record
            return function(*args, **kwargs)
        function = self._function(bytes(body[:length]))
        args = from_record(body[length:], copy=copy)
        del body, record
        if kind == APPLY:
            return function(*args)
        return apply_each(function, args)

    def _function(self, name: bytes) -> Callable[..., Any]:
        """What `name`, the pickle of a function, stands for now.

        Looking whether it is still there costs less than finding it again.
        """
        known = self._functions.get(name)
        if known is not None and _is_there(known):
            return known
        found: Callable[..., Any] = pickle.loads(name)  # noqa: TID251 # both ends are one program
        self._functions[name] = found
        return found

    def _record(self, number: int, kind: int, took: float, body: bytes | list[Any]) -> bytes:
        if type(body) is bytes and len(body) <= LARGEST:
            return ANSWER.pack(number, kind, took) + body
        pieces = [body] if isinstance(body, bytes) else body
        if length_of(pieces) <= LARGEST:
            return b"".join((ANSWER.pack(number, kind, took), *pieces))
        parcels.send(self._post.parcels, number, pieces, wait=True)
        return ANSWER.pack(number, kind | PARCEL, took)


def _is_there(function: Callable[..., Any]) -> bool:
    return getattr(sys.modules.get(function.__module__), function.__name__, None) is function
