"""What an instance writes into its console besides what it prints: lines with a level, and `logging`."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from multikernel.errors import NotOwner

if TYPE_CHECKING:
    from multikernel.shm.pages import Console

_BARE = re.compile(r"[\w.:/@+%-]+")

_LEVELS = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7
_FORMAT = logging.Formatter("%(name)s: %(message)s")  # made before any instance is forked


def with_fields(text: str, fields: Mapping[str, Any]) -> str:
    """`text` and, after it, `key=value` for each field; a value that is no plain word is quoted as JSON quotes."""
    return " ".join([text, *(f"{key}={_value(value)}" for key, value in fields.items())]) if fields else text


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)  # quotes line ends too


def install(console: Console) -> None:
    """Give the root logger a handler that writes into the console, and the level INFO; unless it has a handler."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(ConsoleHandler(console))
        root.setLevel(logging.INFO)


class ConsoleHandler(logging.Handler):
    """Writes each record as a line, `name: message`, with the level that syslog has for it. Never waits."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self.setFormatter(_FORMAT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        try:
            text = self.format(record) + "\n"
            try:
                self._console.write(text, syslog_level(record.levelno))
            except NotOwner:  # in a forked child, or after the console's end: what is printed still arrives
                sys.stderr.write(text)
        except Exception:  # noqa: BLE001 - as every handler: what cannot be logged ends nothing
            self.handleError(record)


def syslog_level(level: int) -> int:
    """The number that syslog has for a level of `logging`."""
    return next((number for least, number in _LEVELS if level >= least), _DEBUG)
