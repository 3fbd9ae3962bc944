"""The rule for names of machines and instances: they become file names and entries of a view."""

from __future__ import annotations

from multikernel.errors import ResourceError

MAX_NAME = 64
"""Longest name, in bytes of UTF-8: what a record in the machine's page holds."""

RULE = (
    "a name has 1 to 64 characters (bytes, if they are not ASCII), none of them '/' or a control character, "
    "and is not '.' or '..'"
)


def check_name(name: str) -> str:
    """`name`, if it may be one.

    Raises:
        ResourceError: it breaks the rule, which the message states; field `name`.
        TypeError: it is not text.
    """
    if not isinstance(name, str):
        raise TypeError(f"a name is text, not {type(name).__name__}")
    # isprintable() is false for NUL, controls, line separators, what turns the direction of a terminal's text, and
    # lone surrogates, which have no UTF-8.
    if not name or not name.isprintable() or len(name.encode()) > MAX_NAME or "/" in name or name in (".", ".."):
        shown = repr(name) if len(name) <= MAX_NAME else f"{name[:20]!r}... ({len(name)} characters)"
        raise ResourceError(f"{shown} cannot be a name: {RULE}.", name=name)
    return name
