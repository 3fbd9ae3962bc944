"""The demo's input: which files there are, and what is in them."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from typing import Any

from multikernel.units import format_size

LARGEST = 64 * 1024 * 1024
"""Bytes of the largest file that is parsed: a syntax tree takes some fifty times its source."""

_LEAST_CAPACITY = 4 * 1024 * 1024
_MOST_PREFIX = 8192  # bytes that go before a file's content, a path's most (PATH_MAX is 4096) among them
_NOT_THE_STANDARD_LIBRARY = {"site-packages", "dist-packages"}


class Unreadable(Exception):
    """A file cannot be given to the parser; says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file. name: relative to the input's directory; size: bytes, when it was looked at."""

    path: str
    name: str
    size: int


def standard_library() -> str:
    """The directory of the running interpreter's own standard library."""
    return sysconfig.get_path("stdlib")


def scan(directory: str) -> list[Source]:
    """Every `*.py` file below `directory`, ordered by name. Installed packages are no part of a standard library.

    Raises:
        NotADirectoryError, FileNotFoundError, PermissionError: `directory` itself cannot be listed.
    """
    skip = _NOT_THE_STANDARD_LIBRARY if os.path.realpath(directory) == os.path.realpath(standard_library()) else set()
    os.scandir(directory).close()  # os.walk is silent about errors
    found = []
    for parent, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if name not in skip]
        for file in files:
            path = os.path.join(parent, file)
            if file.endswith(".py") and os.path.isfile(path):
                found.append(Source(path, os.path.relpath(path, directory), os.path.getsize(path)))
    return sorted(found, key=lambda source: source.name)


def capacity_for(sources: list[Source]) -> int:
    """Bytes that a link needs: the largest file and the one after it, with room for names and headers."""
    largest = max((min(source.size, LARGEST) for source in sources), default=0)
    return max(_LEAST_CAPACITY, 2 * (largest + _MOST_PREFIX))


@contextmanager
def opened(source: Source) -> Iterator[tuple[FileIO, int]]:
    """The open file, without a buffer between it and where it is read to, and its size now, bytes.

    Raises:
        Unreadable: it cannot be opened, or is larger than what is parsed.
    """
    try:
        file = open(source.path, "rb", buffering=0)  # noqa: SIM115 - the errors of what is done with it are not ours
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    with file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST:
            raise Unreadable(f"larger than {format_size(LARGEST)}")
        yield file, size


def read_into(file: FileIO, room: Any) -> None:
    """Fill `room` (a writable buffer of bytes) from `file`.

    Raises:
        Unreadable: the file has become shorter meanwhile, or the disk has failed.
    """
    done = 0
    while done < len(room):
        with memoryview(room)[done:] as rest:
            try:
                count = file.readinto(rest)
            except OSError as error:
                raise Unreadable(f"cannot be read: {error.strerror}") from None
        if not count:
            raise Unreadable("became shorter while it was read")
        done += count


def read(source: Source) -> bytearray:
    """The content of a file, in memory of one's own. Raises Unreadable."""
    with opened(source) as (file, size):
        content = bytearray(size)
        read_into(file, content)
    return content
