"""What the program, `reader` and `parser` say to each other: one place for the layout of every message.

```
program -> reader   START     JSON {"directory"}; a plain message, which reader keeps, to reply to it:
reader  -> program            `Progress`, after each IPI and when all is done
program -> reader   IPI       vector PROGRESS_VECTOR: how far is it?
program -> reader   RESULT    a request; payload: offset (u64). The reply: the next piece of the JSON result
reader  -> parser   FILE      number (u32), length of the name (u32), name, content
parser  -> reader             number (u32), then `Counts`
```
"""

from __future__ import annotations

import os
from struct import Struct
from typing import Any, NamedTuple, Self

from .counting import Counts

READER = "reader"
PARSER = "parser"

START, RESULT, FILE = 1, 2, 3
"""Subtypes of USER."""

PROGRESS_VECTOR = 1

PIECE = 256 * 1024
"""Bytes of the result in one reply at most."""

_FILE = Struct("<II")
_COUNTS = Struct("<IQIIII")
_PROGRESS = Struct("<QQQQ?")
OFFSET = Struct("<Q")


class Progress(NamedTuple):
    """How far reader is. size: bytes of the files that are done; total_*: of all that it has found."""

    files: int
    size: int
    total_files: int
    total_size: int
    finished: bool

    def pack(self) -> bytes:
        """As a payload."""
        return _PROGRESS.pack(*self)

    @classmethod
    def unpack(cls, payload: Any) -> Self:
        """From a payload."""
        return cls(*_PROGRESS.unpack(payload))


def file_prefix(number: int, name: str) -> bytes:
    """What goes before the content of a file."""
    encoded = os.fsencode(name)
    return _FILE.pack(number, len(encoded)) + encoded


def split_file(payload: memoryview) -> tuple[int, str, int]:
    """Number and name of a file, and where in the payload its content begins."""
    number, length = _FILE.unpack_from(payload)
    start = _FILE.size + length
    return number, os.fsdecode(bytes(payload[_FILE.size : start])), start


def pack_counts(number: int, counts: Counts) -> bytes:
    """What parser replies."""
    *figures, reason = counts
    return _COUNTS.pack(number, *figures) + reason.encode("utf-8", "backslashreplace")


def unpack_counts(payload: Any) -> tuple[int, Counts]:
    """Number and counts from parser's reply."""
    number, size, lines, functions, classes, imports = _COUNTS.unpack_from(payload)
    reason = bytes(payload[_COUNTS.size :]).decode()
    return number, Counts(size, lines, functions, classes, imports, reason)
