"""Tasks and their answers, as records between a `CoreExecutor` and its workers.

Both begin with a head of 16 bytes. Of a task:

    u64 number, counted for each worker; u8 kind; 3 bytes 0; u32 length of what stands before the arguments

and of an answer:

    u64 number of the task; u8 kind; 3 bytes 0; f32 seconds that the task took

in the machine's own byte order. What does not fit into a record travels as a parcel: the record is the head alone then.
"""

from __future__ import annotations

import struct
import traceback
from concurrent.futures import Future
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from .objects import from_record, to_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from .objects import Piece

TASK = struct.Struct("=QB3xI")
ANSWER = struct.Struct("=QB3xf")
HEAD = TASK.size

CALL, APPLY, APPLY_EACH = range(3)
"""Kinds of task. CALL: the pickle of (function, args, kwargs). APPLY: that of a function, then that of args, which are
pickled apart because the function is the same for many. APPLY_EACH: the same with a list of args."""

VALUE, ERROR, LEFT, UNFIT = range(4)
"""Kinds of answer. VALUE: a pickle. ERROR: u64 length of a traceback, the traceback, the pickle of an exception.
LEFT: the task was taken back, and not begun. UNFIT: the initializer failed, with a traceback."""

PARCEL = 0x80
"""Added to a kind: what would follow the head comes in a parcel."""

LARGEST = 32 * 1024
"""Bytes of the largest record; the rest are parcels."""

RING = 256 * 1024
"""Bytes of a worker's rings: room for some thousand small tasks."""

_LENGTH = struct.Struct("=Q")


class RemoteTraceback(Exception):
    """What an exception that was raised in a worker has as its `__cause__`: the traceback that it had there."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class Task:
    """One task, before and after its worker has it."""

    __slots__ = ("abandoned", "begun", "body", "kind", "length", "number")

    def __init__(self, kind: int, length: int, body: bytes) -> None:
        self.kind = kind
        self.length = length  # of what stands before the arguments
        self.body = body
        self.number = 0  # at the worker that has it; 0: none has
        self.begun = False
        self.abandoned = False  # nobody has its future, which a Ctrl-C may have left locked

    def begin(self) -> bool:
        """Whether it is still wanted; it cannot be cancelled from then on."""
        raise NotImplementedError

    def answer(self, kind: int, body: bytes | memoryview) -> None:
        """It was done."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """It will not be done."""
        raise NotImplementedError

    def cancel(self) -> None:
        """It is not wanted any more, and was not begun."""
        raise NotImplementedError


class TaskFuture(Future[Any]):
    """A future that can be cancelled until a worker begins with its task, also when one has it at hand already."""

    recall: Callable[[], bool] | None = None
    """Takes the task out, if no worker has begun with it; None: there is no such task, or no more."""

    def cancel(self) -> bool:
        """Cancel the call, if no worker has begun with it. Whether it is cancelled."""
        recall = self.recall
        if super().cancel():
            return True
        if recall is None or not recall():
            return self.cancelled()
        with self._condition:  # nobody else has the task, and so nobody else changes the state
            self._state = "PENDING"
        super().cancel()
        self.set_running_or_notify_cancel()
        self.recall = None
        return True


class FutureTask(Task):
    """A task whose result goes to a future."""

    __slots__ = ("future",)

    def __init__(self, future: TaskFuture, body: bytes) -> None:
        super().__init__(CALL, 0, body)
        self.future = future

    def begin(self) -> bool:
        """As of `Task`."""
        if self.begun:
            return not self.abandoned
        self.begun = True  # first: asking the future a second time is an error
        return self.future.set_running_or_notify_cancel()

    def answer(self, kind: int, body: bytes | memoryview) -> None:
        """As of `Task`."""
        value, error = opened(kind, body)
        if error is not None:
            self.fail(error)
        elif not self.abandoned:
            self.future.recall = None
            self.future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """As of `Task`."""
        if not self.abandoned:
            self.future.recall = None
            self.future.set_exception(error)

    def cancel(self) -> None:
        """As of `Task`."""
        self.future.cancel()
        self.future.set_running_or_notify_cancel()


class Pickled:
    """A function that is applied many times: what each task carries of it."""

    def __init__(self, function: Callable[..., Any], *, each: bool) -> None:
        self._function = function
        self._each = each
        self._head = b""
        # Such a pickle is a name, and what it names has nothing in common with the arguments. Of anything else, each
        # task carries its own copy, in one pickle with its arguments.
        if _is_name(function):
            head = joined(to_record(function))
            self._head = head + bytes(-len(head) % 8)

    def parts(self, args: Any) -> tuple[int, int, bytes]:
        """Kind, length and body of the task that applies it to `args`: to each of them, if so made.

        Raises:
            Exception: what pickling raises.
        """
        if self._head:
            arguments = to_record(args)
            head = self._head
            body = head + arguments if type(arguments) is bytes else b"".join((head, *arguments))
            return (APPLY_EACH if self._each else APPLY), len(head), body
        if self._each:
            return CALL, 0, joined(to_record((apply_each, (self._function, args), {})))
        return CALL, 0, joined(to_record((self._function, args, {})))


def _is_name(function: object) -> bool:
    if type(function) is BuiltinFunctionType:
        return isinstance(function.__self__, ModuleType)
    return type(function) in (FunctionType, type)


def apply_each(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """What a worker does with a chunk of a `map`."""
    return [function(*args) for args in arguments]


def joined(record: bytes | list[Piece]) -> bytes:
    """A record in one piece."""
    return record if isinstance(record, bytes) else b"".join(record)


def described(error: BaseException) -> str:
    """The traceback of an exception, as text."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def unpicklable(error: Exception) -> Exception:
    """What pickling a task has raised, as its result: with the traceback as its cause, as if it had come back."""
    error.__cause__ = RemoteTraceback(described(error))
    return error.with_traceback(None)


def error_body(error: BaseException) -> bytes:
    """What an answer of kind ERROR carries. Raises what pickling the exception raises."""
    text = described(error).encode(errors="backslashreplace")
    error.__traceback__ = None
    return _LENGTH.pack(len(text)) + text + joined(to_record(error))


def opened(kind: int, body: bytes | memoryview) -> tuple[Any, BaseException | None]:
    """The value of an answer, or what its task had raised; or what is raised by unpickling it."""
    text = ""
    try:
        if kind == VALUE:
            return from_record(body, copy=isinstance(body, bytes)), None  # a parcel is memory of its own already
        (length,) = _LENGTH.unpack_from(body)
        text = bytes(body[_LENGTH.size : _LENGTH.size + length]).decode()
        error = from_record(body[_LENGTH.size + length :])
    except BaseException as why:  # noqa: BLE001 - what is unpickled may do anything, and it is its task that fails
        error = why.with_traceback(None) if text else why
    if text:
        error.__cause__ = RemoteTraceback(text)
    return None, error
