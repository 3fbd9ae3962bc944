"""How the texts are written, so that they can be read back: no value can look like another line or another column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_BETWEEN_WORDS = " ,()"


def line(text: str) -> str:
    r"""`text` as the last thing of a line: a backslash and whatever does not print is \ and three octal digits a byte.

    So does the kernel in /proc/PID/mountinfo.
    """
    return "".join(char if char.isprintable() and char != "\\" else _octal(char) for char in text)


def word(text: str) -> str:
    """`text` as one of several words of a line: as `line`, and so are spaces, commas and parentheses; "-" is none."""
    if text in ("", "-"):
        return _octal(text) or "-"
    return "".join(_octal(char) if char in _BETWEEN_WORDS else char for char in line(text))


def pairs(values: Iterable[tuple[str, object]]) -> str:
    """Lines as those of /proc/PID/status: a name, a colon, a tab, a value. None is written "-"."""
    return "".join(f"{name}:\t{shown(value)}\n" for name, value in values)


def shown(value: object) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def kib(size: int) -> str:
    """Bytes in the kernel's unit: 1 kB is 1024 bytes; what is less than one is cut off."""
    return f"{size // 1024} kB"


def seconds(nanoseconds: int) -> str:
    """Nanoseconds as seconds, to a millisecond."""
    return f"{nanoseconds / 1e9:.3f} s"


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], left: Iterable[str] = ()) -> str:
    """Columns under their headers, right-aligned but for those named in `left`. Cells must be words."""
    cells = [headers, *([shown(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    lefts = [header in tuple(left) for header in headers]
    lines = (
        "  ".join(
            f"{cell:<{width}}" if is_left else f"{cell:>{width}}"
            for cell, width, is_left in zip(row, widths, lefts, strict=True)
        )
        for row in cells
    )
    return "".join(f"{text.rstrip()}\n" for text in lines)


def _octal(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in char.encode(errors="replace"))
