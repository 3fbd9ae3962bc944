"""Show an instance's console while it runs, from the pages that it writes itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multikernel.machine import Instance
    from multikernel.shm.pages import End

_LOOK = 0.1  # seconds between two looks at a console; the instance does not ring for it


class Follower:
    """Writes what the console of an instance's newest incarnation has, and then what is added.

    Args:
        instance: whose console.
        write: called with text as it was printed, newlines included.
    """

    def __init__(self, instance: Instance, write: Callable[[str], None]) -> None:
        self._instance, self._write = instance, write
        self._epoch = 0
        self._position = 0

    def look(self) -> None:
        """Write what has been added since the last look."""
        from multikernel.shm.pages import as_text

        found = self._instance.machine.watched(self._instance.id)
        if found is None:
            return
        epoch, _, console = found
        if epoch != self._epoch:
            self._epoch, self._position = epoch, 0
        lines, self._position = console.lines(self._position)
        if lines:
            self._write(as_text(lines))

    def finish(self) -> None:
        """Write the rest of an incarnation that has ended, and what it left unread in its pipe if it was killed."""
        self.look()
        record = self._instance.machine.view.instance(self._instance.id)
        if record is not None and not record.pid and record.console_tail:
            self._write(record.console_tail)

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
