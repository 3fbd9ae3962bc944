"""What a terminal is asked for, and spared."""

from __future__ import annotations

from typing import TextIO


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal; Python has None for one that was closed before it began."""
    return stream is not None and stream.isatty()


def plain(text: str) -> str:
    """`text` without anything that a terminal would obey: control characters are shown as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
