"""Type to an instance while its console is shown: `multikernel console --attach`."""

from __future__ import annotations

import os
import select
import sys
from typing import TYPE_CHECKING

from . import output

if TYPE_CHECKING:
    from multikernel import Input
    from multikernel.machine import Instance
    from multikernel.shm.pages import End

    from .follow import Follower

_LOOK = 0.02  # seconds between two looks at a console of whose instance somebody is waiting for an answer
_AT_ONCE = 4096  # bytes of what was typed that wait here for room; more is not read meanwhile


def until_end(instance: Instance, follower: Follower) -> End:
    """Pass on what is typed and show what is printed, until the incarnation has ended; how it did.

    The terminal stays as it is: it echoes, and hands a line on when that is finished.
    """
    from multikernel.errors import Closed

    with instance.attach() as typed:
        epoch = instance.epoch
        waiting, source = b"", [sys.stdin.fileno()]
        try:
            while instance.pid and instance.epoch == epoch:
                waiting, source = _pass_on(typed, waiting, source)
                follower.look()
        except Closed:
            pass  # what it reads is at its end with it
    end = instance.wait()
    follower.finish()
    return end


def _pass_on(typed: Input, waiting: bytes, source: list[int]) -> tuple[bytes, list[int]]:
    """Wait for a moment, or for something to pass on, and do that."""
    readable, _, _ = select.select([] if waiting else source, [typed.fileno()] if waiting else [], [], _LOOK)
    if readable:
        waiting = os.read(source[0], _AT_ONCE)
        if not waiting:
            source = []
            output.talk("end of input; what it prints goes on being shown, until Ctrl-C")
    return waiting[typed.try_write(waiting) :], source
