"""Views of a ring's memory that end with their block.

A view is a memoryview over an exporter that nothing else holds. While a slice of it, or an array made from it, is
alive, the exporter is, and the memory below must not be reused: so what gives the space back runs when the exporter
is gone. In the ordinary case that is the end of the block.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

from multikernel._core import ffi


class View:
    """A block that lends out memory: `with ring.reserve(8) as view: ...`.

    Args:
        take: gets the memory; returns a C pointer and the length in bytes. Has nothing when it raises.
        give: gives it back; its argument says whether the block ended well. May be called by whatever thread drops the
            last reference.
        readonly: whether the memoryview refuses writing.

    Raises (at the end of the block):
        BufferError: something made from the view is still alive; the space stays taken until that is gone.
    """

    __slots__ = ("__weakref__", "_exporter", "_give", "_readonly", "_take", "_view")

    def __init__(self, take: Callable[[], tuple[Any, int]], give: Callable[[bool], None], *, readonly: bool) -> None:
        self._take = take
        self._give = give
        self._readonly = readonly
        self._view: memoryview | None = None
        self._exporter: weakref.ref[Any] | None = None

    def __enter__(self) -> memoryview:
        if self._exporter is not None:
            raise RuntimeError("a view is for one block: ask for another")
        pointer, length = self._take()
        try:
            exporter = ffi.buffer(ffi.cast("char *", pointer), length)
            view = memoryview(exporter)
            self._view = view.toreadonly() if self._readonly else view
            self._exporter = weakref.ref(exporter)
        except BaseException:
            self._give(False)
            raise
        return self._view

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._view is not None
        assert self._exporter is not None
        try:
            self._view.release()
        except BufferError:
            pass  # an array was made straight from the view: it keeps the exporter, as a slice does
        still_there = self._exporter()
        self._view = None
        if still_there is None:
            self._give(kind is None)
            return
        weakref.finalize(still_there, self._give, False).atexit = False
        del still_there
        if kind is None:
            raise BufferError(
                "something made from this view is still alive (an array or a slice); the space stays taken until it is "
                "gone. Copy what should outlive the block"
            )
