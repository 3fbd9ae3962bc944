"""Errors of a service's methods on their way to the caller, with their type where both sides know it.

What comes over a link is input: a class is looked up among Python's own errors, multikernel's, and those that the
method's own declaration names here, and nothing is ever imported for it.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Sequence
from typing import Any

from multikernel.errors import MultikernelError, RemoteError, from_wire, to_wire

LONGEST = 6000
"""Characters of a traceback that travel; of a longer one the end."""

_BUILTIN, _OURS, _DECLARED, _OTHER = range(4)


def to_plain(error: Exception, raises: Sequence[type[Exception]]) -> list[Any]:
    """An error as a plain value: [kind, name, content, text, traceback]."""
    kind = type(error)
    text = str(error)
    trace = "".join(traceback.format_exception(error))[-LONGEST:]
    declared = next((each for each in kind.__mro__ if each in raises), None)
    if declared is not None:
        return [_DECLARED, declared.__qualname__, _arguments(error), text, trace]
    if isinstance(error, MultikernelError):
        return [_OURS, kind.__name__, to_wire(error), text, trace]
    if kind.__module__ == "builtins":
        return [_BUILTIN, kind.__name__, _arguments(error), text, trace]
    return [_OTHER, f"{kind.__module__}.{kind.__qualname__}", [], text, trace]


def from_plain(plain: Any, raises: Sequence[type[Exception]], where: str) -> Exception:
    """The error to raise here; what is not known here is a `RemoteError`.

    Args:
        plain: as it came.
        raises: what the method declares here.
        where: who has raised it, for the note that the error gets with its traceback.
    """
    try:
        number, name, content, text, trace = plain
        error = _made(number, str(name), content, raises)
    except Exception:  # noqa: BLE001 - whatever the other side sent, or the class made of it
        number, name, text, trace, error = _OTHER, "an error", repr(plain)[:LONGEST], "", None
    if error is None:
        error = RemoteError(f"{where}: {name}: {text}", type=str(name), text=str(text))
    error.add_note(f"raised in {where}" + (f":\n{trace}" if trace else ""))
    return error


def _made(number: Any, name: str, content: Any, raises: Sequence[type[Exception]]) -> Exception | None:
    if number == _OURS:
        return from_wire(content)
    if number == _DECLARED:
        kind = next((each for each in raises if each.__qualname__ == name), None)
    else:
        kind = getattr(builtins, name, None) if number == _BUILTIN else None
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            return None
    if kind is None:
        return None
    try:
        return kind(*content)
    except Exception:
        if number != _DECLARED:
            raise
        # Its constructor takes something else than the args that it keeps.
        return kind.__new__(kind, *content)  # of that type, and with that text, all the same


def _arguments(error: Exception) -> list[Any]:
    if isinstance(error, OSError) and isinstance(error.filename, str):  # which its args do not have
        return [error.errno, error.strerror, error.filename]
    return list(error.args) if all(map(_is_plain, error.args)) else [str(error)]


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | bytes)
