"""Show an instance's console while it runs, from the pages that it writes itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from . import output

if TYPE_CHECKING:
    from multikernel.machine import Instance
    from multikernel.shm.pages import End, Line

LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
"""syslog's levels, from 0 up."""

_LOOK = 0.1  # seconds between two looks at a console; the instance does not ring for it
_PRINTED = LEVELS.index("info")  # what a program prints


class Shown:
    """How lines are shown: which of them, and what stands before each.

    Args:
        level: lines of this of syslog's levels, and of more urgent ones.
        times: whether the time of each stands before it, as the kernel's log has it: seconds of CLOCK_MONOTONIC.
    """

    def __init__(self, level: int = len(LEVELS) - 1, *, times: bool = False) -> None:
        self._level, self._times = level, times
        self._inside = False  # a line, whose end has not come yet

    def text(self, lines: Iterable[Line]) -> str:
        """As it was printed, but for that."""
        words = []
        for line in lines:
            if line.level > self._level:
                continue
            if self._times and not self._inside:
                words.append(f"[{line.time_ns / 1e9:13.6f}] ")
            words.append(line.text if line.partial else f"{line.text}\n")
            self._inside = line.partial
        return "".join(words)

    def unread(self, text: str) -> str:
        """What was still in the pipe of an instance that was killed: it has no time."""
        return text if self._level >= _PRINTED else ""


class Follower:
    """Writes what the console of an instance's newest incarnation has, and then what is added.

    Args:
        instance: whose console.
        write: called with text, newlines included.
        shown: how; default: all, as it was printed.
    """

    def __init__(self, instance: Instance, write: Callable[[str], None], shown: Shown | None = None) -> None:
        self._instance, self._write = instance, write
        self._shown = shown or Shown()
        self._epoch = 0
        self._position = 0

    def look(self) -> None:
        """Write what has been added since the last look, and tell the person what was overwritten meanwhile."""
        found = self._instance.machine.watched(self._instance.id)
        if found is None:
            return
        epoch, _, console = found
        if epoch != self._epoch:
            self._epoch, self._position = epoch, 0
        begun = self._position > 0
        lines, self._position = console.lines(self._position)
        if begun and (lost := sum(line.lost for line in lines)):
            output.talk(f"{self._instance.name} printed faster than was read: some {lost} bytes are lost")
        if text := self._shown.text(lines):
            self._write(text)

    def finish(self) -> None:
        """Write the rest of an incarnation that has ended, and what it left unread in its pipe if it was killed."""
        self.look()
        record = self._instance.machine.view.instance(self._instance.id)
        if record is not None and not record.pid and (text := self._shown.unread(record.console_tail)):
            self._write(text)

    def until_end(self) -> End:
        """Go on until the incarnation has ended; how it did."""
        from multikernel.errors import Timeout

        while True:
            try:
                end = self._instance.wait(timeout=_LOOK)
            except Timeout:
                self.look()
            else:
                self.finish()
                return end
