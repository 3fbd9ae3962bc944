"""A request as it came: its fields are input, so each is taken by name and type."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn

import multikernel
from multikernel.errors import MultikernelError
from multikernel.kernel.protocol import PROTOCOL
from multikernel.shm.channel import close_all, expect
from multikernel.units import MAX_SECONDS

if TYPE_CHECKING:
    from multikernel.shm.channel import Document


class Request:
    """One document, and the descriptors that came with it; what nobody takes of them is closed by `close`.

    Every method that gets a field raises `MultikernelError` if it is missing or of another type.
    """

    def __init__(self, document: Document, fds: list[int]) -> None:
        self.verb = str(document.get("verb"))[:80]
        self.number: object = document.get("id")
        """What the asker knows it by."""
        self._document = document
        self._fds = fds

    def text(self, key: str) -> str:
        """A string."""
        value = self._get(key)
        return value if isinstance(value, str) else self._refuse(key, "text")

    def text_or_none(self, key: str) -> str | None:
        """A string, or null."""
        return None if self._get(key) is None else self.text(key)

    def integer(self, key: str) -> int:
        """An integer."""
        value = self._get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else self._refuse(key, "an integer")

    def integer_or_none(self, key: str) -> int | None:
        """An integer, or null."""
        return None if self._get(key) is None else self.integer(key)

    def integers_or_none(self, key: str) -> tuple[int, ...] | None:
        """A list of integers, or null."""
        value = self._get(key)
        if not (value is None or (isinstance(value, list) and all(map(_is_integer, value)))):
            self._refuse(key, "a list of integers")
        return None if value is None else tuple(value)

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        value = self._get(key)
        if not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
            self._refuse(key, "a list of texts")
        return list(value)

    def seconds(self, key: str) -> float:
        """A time from 0 up, in seconds."""
        value = self._get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not (value >= 0 and math.isfinite(value)):
            self._refuse(key, "a number of seconds from 0 up")
        return float(min(value, MAX_SECONDS))

    def seconds_or_none(self, key: str) -> float | None:
        """A time, or null: no limit."""
        return None if self._get(key) is None else self.seconds(key)

    def flag(self, key: str) -> bool:
        """A boolean."""
        value = self._get(key)
        return value if isinstance(value, bool) else self._refuse(key, "true or false")

    def object(self, key: str) -> dict[str, Any]:
        """A JSON object."""
        value = self._get(key)
        return value if isinstance(value, dict) else self._refuse(key, "an object")

    def descriptors(self, count: int) -> list[int]:
        """The descriptors, which must be `count`; still the request's."""
        fds, self._fds = self._fds, []
        self._fds = expect(fds, count, self.verb, "the host")
        return self._fds

    def take(self, count: int) -> list[int]:
        """As `descriptors`, but they are the caller's from now on."""
        fds, self._fds = self.descriptors(count), []
        return fds

    def close(self) -> None:
        """Close what was not taken."""
        close_all(self._fds)
        self._fds = []

    def _get(self, key: str) -> Any:
        if key not in self._document:
            raise MultikernelError(f"{self.verb}: the field {key!r} is missing")
        return self._document[key]

    def _refuse(self, key: str, wanted: str) -> NoReturn:
        raise MultikernelError(f"{self.verb}: {key!r} must be {wanted}, not {str(self._document[key])[:80]!r}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_protocol(request: Request) -> None:
    """Refuse a first request in another version of the protocol.

    Raises:
        MultikernelError: with both versions, and what to do.
    """
    theirs = request.integer("protocol")
    if theirs != PROTOCOL:
        raise MultikernelError(
            f"this machine's host speaks version {PROTOCOL} of the protocol (multikernel {multikernel.__version__}), "
            f"and you speak version {theirs}. Use the multikernel that started the machine, or shut it down with that "
            "and start it anew with yours.",
            host=PROTOCOL,
            client=theirs,
        )
