"""The console: a bounded ring of the lines that an instance printed."""

from __future__ import annotations

import codecs
import os
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from multikernel._core import failure, ffi, lib
from multikernel.errors import CorruptLane, NotOwner

from .objects import refusal

INFO = 6
"""syslog's level for what a program prints."""


@dataclass(frozen=True)
class Line:
    """One line.

    time_ns: CLOCK_MONOTONIC
    level: syslog's
    partial: no newline followed it
    lost: bytes before it that were overwritten before they were read, of lines with 16 each; 0: none
    """

    time_ns: int
    level: int
    text: str
    partial: bool
    lost: int = 0


class Console:
    """The writing side. `fd` is a read-only descriptor to hand out."""

    def __init__(self, writer: Any, fd: int) -> None:
        self._writer = writer
        self._generation = lib.mk_fork_generation()
        self.fd = fd

    @classmethod
    def create(cls, owner_id: int = 0, epoch: int = 0, capacity: int = 64 * 1024) -> Console:
        """Make a console of `capacity` bytes (a power of two)."""
        out = ffi.new("struct mk_console_writer **")
        fd = lib.mk_console_create(capacity, owner_id, epoch, out)
        if fd < 0:
            raise failure(fd, f"making a console of {capacity} bytes")
        return cls(out[0], fd)

    def write(self, text: str, level: int = INFO) -> None:
        """Write text; every newline ends a line."""
        data = text.encode(errors="replace")
        lib.mk_console_write(self._open(), level, data, len(data))

    def drain(self, pipe_fd: int) -> None:
        """Copy everything that comes out of a pipe, by a thread of the core; the console owns the descriptor now."""
        code = lib.mk_console_drain(self._open(), pipe_fd)
        if code:
            raise failure(code, "starting the console's thread")

    def finish(self) -> None:
        """Take what is left in the pipe and unmap; watchers keep what was written. Idempotent."""
        writer, self._writer = self._writer, None
        if writer is not None:
            lib.mk_console_finish(writer)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _open(self) -> Any:
        if self._writer is None or self._generation != lib.mk_fork_generation():
            raise NotOwner("this console is finished, or belongs to the process that this one was forked from")
        return self._writer


class ConsoleView:
    """The reading side, from a descriptor; that stays the caller's."""

    def __init__(self, fd: int) -> None:
        console = ffi.new("const struct mk_console **")
        self._header = ffi.new("struct mk_object *")
        self._console: Any = None
        self._generation = lib.mk_fork_generation()
        why = ffi.new("uint32_t *")
        code = lib.mk_console_open(fd, console, self._header, why)
        if code:
            raise refusal(code, why[0], self._header, "console")
        # Unmapped when the last that uses it lets go: one thread may close the view while another reads.
        self._console = ffi.gc(console[0], partial(_unmap, self._header, self._generation))

    @property
    def capacity(self) -> int:
        """Bytes that it holds, of text and 16 a line."""
        capacity: int = self._header.capacity
        return capacity

    def lines(self, since: int = 0) -> tuple[list[Line], int]:
        """The lines from position `since` on (0: the oldest that is left), and the position after them.

        As much as the console can hold at most: one that is printed to faster than it is read does not keep its reader.
        """
        console = self._open()
        position = ffi.new("uint64_t *", since)
        line = ffi.new("struct mk_console_line *")
        text = ffi.new("char[]", lib.MK_CONSOLE_LINE_MAX)
        # A line in parts (long ones; a pipe's, wherever a read ended) may be cut inside a character.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        found: list[Line] = []
        left = self.capacity
        while left > 0:
            expected = position[0]
            code = lib.mk_console_next(console, self._header, position, line, text)
            if code < 0:
                raise CorruptLane("this is no console, or its writer scribbled over it")
            if not code:
                break
            partial = bool(line.flags & lib.MK_CONSOLE_PARTIAL)
            words = decoder.decode(ffi.buffer(text, line.length)[:], final=not partial)
            size = ffi.sizeof("struct mk_console_line") + line.length
            lost = max(position[0] - (size + 7 & ~7) - expected, 0)  # lines lie on multiples of 8
            found.append(Line(line.time, line.level, words, partial, lost))
            left -= size
        if cut := decoder.decode(b"", final=True):
            found[-1] = replace(found[-1], text=found[-1].text + cut)
        return found, position[0]

    def text(self) -> str:
        """All that is left, as it was printed."""
        return as_text(self.lines()[0])

    def new_in(self, unread: bytes) -> str:
        """Of what a dead writer's pipe still holds, the part that does not stand here already.

        It was killed, perhaps, when it had copied some of it and not taken it out yet.
        """
        copied = unread[: lib.mk_console_copied(self._open())].decode(errors="replace")
        text = unread.decode(errors="replace")
        return text.removeprefix(copied) if self.text().endswith(copied) else text

    def close(self) -> None:
        """Unmap. Idempotent."""
        self._console = None

    def _open(self) -> Any:
        if self._console is None:
            raise ValueError("this console view was closed")
        if self._generation != lib.mk_fork_generation():
            raise NotOwner("this console was mapped by the process that this one was forked from")
        return self._console


def _unmap(header: Any, generation: int, console: Any) -> None:
    if generation == lib.mk_fork_generation():  # nothing is mapped in a forked copy
        lib.mk_console_close(console, header)


def as_text(lines: list[Line]) -> str:
    """Lines as they were printed."""
    return "".join(line.text if line.partial else f"{line.text}\n" for line in lines)
