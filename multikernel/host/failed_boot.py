"""What is said of a boot that did not come as far as it was to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multikernel.errors import BootError

if TYPE_CHECKING:
    from multikernel.host.incarnation import Incarnation
    from multikernel.host.instance import Instance

_SHOWN_LINES = 24  # of the console, in the message


def boot_error(instance: Instance, run: Incarnation, aim: str) -> BootError:
    """The error for `run`, which is over and was to be `aim`; with the end of its console."""
    end, console = run.over.result(), run.output()
    how = {
        "boot": "it was killed" if run.late else "its boot failed",
        "killed": "it was killed",
        "signal": f"signal {end.signal} ended it",
        "exception": "main raised an exception",
        "returned": f"main returned {end.code}",
    }.get(end.reason, f"it exited with status {end.code}")
    shown = (console or end.traceback).rstrip().splitlines()[-_SHOWN_LINES:]
    said = "".join(f"\n  {line}" for line in shown)
    return BootError(
        f"{instance.name!r} was not {aim}: {how}. It is {instance.state} now. "
        + (f"The end of its console:{said}" if shown else "It has printed nothing."),
        name=instance.name,
        state=instance.state,
        reason=end.reason,
        code=end.code,
        signal=end.signal,
        traceback=end.traceback,
        console=console,
    )
