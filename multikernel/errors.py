"""What goes wrong, as classes. All are `MultikernelError`s, carry fields for programs, and cross process borders.

A message says what was asked, what is there and what to do. A wrong type (a message that is not bytes-like) is
Python's own `TypeError`, and an argument that is wrong by itself (a size that is no size) its `ValueError`: the classes
here are for what depends on the state of the world.
"""

from __future__ import annotations

import errno
import math
from typing import TYPE_CHECKING, Any


class MultikernelError(Exception):
    """The base of all errors here: catch it to catch them all.

    You get it itself only where no narrower class fits. You do not get it for mistakes that any Python function
    answers with `TypeError` or `ValueError`.

    Args:
        message: what `str()` shows: one or more sentences for a person.
        fields: the same for programs; they become attributes. Sequences are tuples by convention.
    """

    def __init__(self, message: str, /, **fields: Any) -> None:
        super().__init__(message)
        for name, value in fields.items():
            if not _may_be_field(type(self), name):
                raise TypeError(f"{name!r} cannot be a field of {type(self).__name__}: errors use that name themselves")
            setattr(self, name, value)

    # The fields live in the instance's __dict__, next to args == (message,): that is what exceptions pickle anyway.

    @property
    def message(self) -> str:
        """The text alone, whatever else the error is (`KeyError` would put it in quotes)."""
        return str(self.args[0])

    @property
    def fields(self) -> dict[str, Any]:
        """All fields, those too that were set after the error was made."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __str__(self) -> str:
        return self.message

    if TYPE_CHECKING:  # which fields an error has depends on what went wrong

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


class Closed(MultikernelError, BrokenPipeError):
    """The other side is closed, or its process has ended.

    You get it after all that the other side had published has been received, and from any send. You do not get it
    for a peer that is stopped, hung or slow (`Timeout`, if you gave a time-out), for one that scribbled over its own
    pages (`CorruptLane`), nor while a link waits for the next incarnation of its instance.
    """

    errno = errno.EPIPE


class CorruptLane(MultikernelError):
    """The other side wrote into its pages what cannot be; the lane is quarantined and stays so.

    You get it, now and ever after, from the lane on which it was seen, and from attaching an object that is not
    sealed or has another ABI version. You do not get it for anything wrong inside a payload: that is yours to
    check. Nothing outside the lane was read or written.
    """


class StateError(MultikernelError, ValueError):
    """The step is not legal from the state that the instance is in.

    You get it with the state and the steps that are legal from it; nothing has changed. You do not get it for a
    step that was legal and failed (`BootError`, `Timeout`).
    """


class ResourceError(MultikernelError, ValueError):
    """Cpus, memory, an id or a name that cannot be had: taken, not in the pool, or against the rule.

    You get it with what was asked, what is free and all that conflicts; nothing was reserved. You do not get it for
    text that is no list of cpus or no size (`ValueError`), nor when the system itself runs out (`OSError`).
    """


class ImageError(MultikernelError, ValueError):
    """An image that cannot be loaded, or that has no such function to enter.

    You get it from a load, before anything changed, and inside the instance when the loaded image lacks its
    function. You do not get it for an image that raises while it is imported or run (`BootError`).
    """


class NotFound(MultikernelError, KeyError, FileNotFoundError):
    """No machine, instance or file of the view by that name.

    You get it with the names that there are. You do not get it for an image that is missing (`ImageError`), nor for
    an instance that exists and does not run (`StateError`, `Closed`).
    """

    errno = errno.ENOENT


class BootError(MultikernelError):
    """An instance ended, or did not get there in time, before it was as far as the boot should wait for.

    You get it with the tail of its console; the instance's state is `failed`. You do not get it when the image is
    refused before a process is started (`ImageError`), nor for an instance that fails after the boot was done: its
    state and `last_end` say so.
    """


class HandoverError(MultikernelError):
    """A live instance's work could not be passed to the new image; the old incarnation goes on serving.

    You get it with the reason and the new one's console. You do not get it once the new incarnation has taken over:
    what happens to it afterwards is its own failure.
    """


class Timeout(MultikernelError, TimeoutError):
    """What was waited for did not come within the time given.

    You get it only where a time-out was given or is documented; nothing was taken or sent, unless a field (`sent`)
    says how much. You do not get it when waiting is pointless (`Closed`).
    """

    errno = errno.ETIMEDOUT


class NotOwner(MultikernelError, RuntimeError):
    """The end belongs to somebody else: another process, another thread in the middle of a call, an earlier handle.

    You get it before anything was read or written. You do not get it for an end that nobody has used yet: until its
    first use it may be passed on.
    """


class MessageTooLarge(MultikernelError, ValueError):
    """A message that the ring or the channel could never hold, however empty.

    You get it at once, with the limit, and nothing was sent. You do not get it because the ring is full just now:
    then a send waits.
    """


class RemoteError(MultikernelError):
    """A method of a service raised what this side has no class for.

    You get it with the class's name (`type`) and its text. You do not get it for Python's own errors, multikernel's,
    and those that the method declares: they are raised as what they are.
    """


class Unsupported(MultikernelError, OSError):
    """This system lacks something that is needed; the message says what, `multikernel doctor` tries it all.

    You get it at the first use of what needs it, never from an import. You do not get it where a slower way exists:
    that is taken.
    """

    errno = errno.EOPNOTSUPP


_CLASSES: dict[str, type[MultikernelError]] = {
    each.__name__: each
    for each in (
        MultikernelError,
        Closed,
        CorruptLane,
        StateError,
        ResourceError,
        ImageError,
        NotFound,
        BootError,
        HandoverError,
        Timeout,
        NotOwner,
        MessageTooLarge,
        RemoteError,
        Unsupported,
    )
}

_MAX_DEPTH = 8  # of a field's lists and dicts on the wire


def to_wire(error: BaseException) -> dict[str, Any]:
    """`error` as a JSON document: `{"error": class name, "message": text, "fields": {...}}`.

    A subclass made elsewhere goes as the class of this module that it is a kind of; an error that is none of ours as a
    `MultikernelError` whose message begins with its class. Fields that are not plain JSON stay behind; sequences are
    sent as lists, and come back as tuples.
    """
    if not isinstance(error, MultikernelError):
        return {"error": "MultikernelError", "message": f"{type(error).__name__}: {error}", "fields": {}}
    known = next(each for each in type(error).__mro__ if _CLASSES.get(each.__name__) is each)
    fields = {name: value for name, value in error.fields.items() if _is_plain(value, _MAX_DEPTH)}
    return {"error": known.__name__, "message": error.message, "fields": fields}


def from_wire(document: dict[str, Any]) -> MultikernelError:
    """The error that `to_wire` wrote down, to be raised here.

    The document is input: an unknown class gives a `MultikernelError`, fields that cannot be fields are left out.
    """
    name, message, fields = document.get("error"), document.get("message"), document.get("fields")
    kind = _CLASSES.get(name, MultikernelError) if isinstance(name, str) else MultikernelError
    if not isinstance(fields, dict):
        fields = {}
    return kind(
        message if isinstance(message, str) else "the other side reported an error without a message",
        **{
            name: _frozen(value)
            for name, value in fields.items()
            if isinstance(name, str) and _may_be_field(kind, name) and _is_plain(value, _MAX_DEPTH)
        },
    )


def _may_be_field(kind: type[MultikernelError], name: str) -> bool:
    """Whether a field may be called that: what exceptions themselves have (args, errno, ...) stays theirs."""
    return name.isidentifier() and not name.startswith("_") and not hasattr(kind, name)


def _is_plain(value: object, depth: int) -> bool:
    if value is None or isinstance(value, bool | int | str):
        return True
    if isinstance(value, float):
        return math.isfinite(value)  # JSON has no others
    if depth == 0:
        return False
    if isinstance(value, list | tuple):
        return all(_is_plain(each, depth - 1) for each in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(each, depth - 1) for key, each in value.items())
    return False


def _frozen(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_frozen(each) for each in value)
    if isinstance(value, dict):
        return {key: _frozen(each) for key, each in value.items()}
    return value
