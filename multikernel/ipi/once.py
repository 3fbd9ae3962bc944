"""Sending once, though a call that was interrupted by the peer's end is made again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from multikernel.errors import Closed

T = TypeVar("T")


def once(call: Callable[[], T]) -> Callable[[], T]:
    """`call`, for who makes it again after Closed: what it was to send may lie in the lane by then (`sent`).

    It is not made again then, and gives True.
    """
    lies_there = False

    def attempt() -> T:
        nonlocal lies_there
        if lies_there:
            return cast("T", True)
        try:
            return call()
        except Closed as error:
            lies_there = bool(getattr(error, "sent", 0))
            raise

    return attempt
