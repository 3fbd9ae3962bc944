"""Where the system has put a core file, by core(5)."""

from __future__ import annotations

import glob
import os
import re

_PATTERN = "/proc/sys/kernel/core_pattern"
_USES_PID = "/proc/sys/kernel/core_uses_pid"


def find(pid: int, number: int, directory: str) -> tuple[str, str]:
    """Where the core file is of a process that a signal has ended: in words, and its path, "" if it is not to be found.

    Args:
        pid: of the process.
        number: the signal.
        directory: where the process was.
    """
    try:
        pattern, uses_pid = _first_line(_PATTERN), _first_line(_USES_PID) != "0"
    except OSError as error:
        return f"written somewhere: {_PATTERN} cannot be read ({error.strerror})", ""
    if pattern.startswith("|"):
        return f"piped by the system to `{pattern[1:].strip()}` (core_pattern): ask that program for it", ""
    if uses_pid and "%p" not in pattern:
        pattern += ".%p"
    wanted = os.path.join(directory, _as_glob(pattern, {"p": str(pid), "P": str(pid), "s": str(number), "%": "%"}))
    found = max(glob.glob(wanted), key=os.path.getmtime, default=None)
    if found is None:
        return f"written as {wanted} (core_pattern), but it is not there", ""
    return found, found


def _as_glob(pattern: str, known: dict[str, str]) -> str:
    """The names that a pattern may give; what is not `known` of it may be anything."""
    parts = re.split(r"%(.)", pattern)
    literal = [glob.escape(part) for part in parts[::2]]
    filled = [known.get(letter, "*") for letter in parts[1::2]]
    return "".join(each for pair in zip(literal, [*filled, ""], strict=True) for each in pair)


def _first_line(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.readline().rstrip("\n")
