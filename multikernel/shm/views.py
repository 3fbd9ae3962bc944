"""Views of a ring's memory that end with their block.

A view is a memoryview over an exporter that nothing else holds. While a slice of it, or an array made from it, is
alive, the exporter is, and the memory below must not be reused: so the space is given back only when the exporter is
gone. In the ordinary case that is the end of the block; an array that outlives it, or a signal's handler that raises
just before the end (KeyboardInterrupt does), only delays it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

from multikernel._core import ffi
from multikernel.errors import NotOwner

_loans: set[_Loan] = set()
"""Memory that is lent out: what gives it back is held here, because a view can be forgotten."""


class _Loan:
    """One exporter, and what is done when it is gone."""

    __slots__ = ("_give", "exporter", "leaving")

    def __init__(self, exporter: Any, give: Callable[[bool], None]) -> None:
        self._give = give
        self.leaving = False  # the block is ending, and will see to it
        self.exporter = weakref.ref(exporter, self._gone)
        _loans.add(self)

    def _gone(self, _: object) -> None:
        if self.leaving:
            return
        _loans.discard(self)
        try:
            self._give(False)
        except NotOwner:
            pass  # a forked copy: nothing was lent out here


class View:
    """A block that lends out memory: `with ring.reserve(8) as view: ...`.

    Args:
        take: gets the memory; returns a C pointer and the length in bytes. Has nothing when it raises.
        give: gives it back; its argument says whether the block ended well. May be called by whatever thread drops the
            last reference.
        recover: as `give(False)`, for when it is not known whether it was given back.
        readonly: whether the memoryview refuses writing.

    Raises (at the end of the block):
        BufferError: something made from the view is still alive; the space stays taken until that is gone.
    """

    __slots__ = ("__weakref__", "_give", "_loan", "_readonly", "_recover", "_take", "_view")

    def __init__(
        self,
        take: Callable[[], tuple[Any, int]],
        give: Callable[[bool], None],
        recover: Callable[[], None],
        *,
        readonly: bool,
    ) -> None:
        self._take = take
        self._give = give
        self._recover = recover
        self._readonly = readonly
        self._view: memoryview | None = None
        self._loan: _Loan | None = None

    def __enter__(self) -> memoryview:
        if self._loan is not None:
            raise RuntimeError("a view is for one block: ask for another")
        pointer, length = self._take()
        try:
            exporter = ffi.buffer(ffi.cast("char *", pointer), length)
            view = memoryview(exporter)
            self._view = view.toreadonly() if self._readonly else view
            self._loan = _Loan(exporter, self._give)
        except BaseException:
            if self._loan is None:
                self._recover()
            raise
        return self._view

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        view, loan = self._view, self._loan
        assert view is not None
        assert loan is not None
        self._view = None
        loan.leaving = True
        try:
            try:
                view.release()
            except BufferError:
                pass  # an array was made straight from the view: it keeps the exporter, as a slice does
            del view
            if loan.exporter() is None:
                _loans.discard(loan)
                self._give(kind is None)
                return
        except BaseException:
            if loan.exporter() is None:
                _loans.discard(loan)
                self._recover()
            else:
                loan.leaving = False
            raise
        loan.leaving = False
        if kind is None:
            raise BufferError(
                "something made from this view is still alive (an array or a slice); the space stays taken until it is "
                "gone. Copy what should outlive the block"
            )


class Views:
    """A block that lends out several messages that lie in a row, each as a memoryview of its own.

    Args:
        whole: lends out all of it.
        cut: finds the messages in that.
    """

    __slots__ = ("_cut", "_pieces", "_whole")

    def __init__(self, whole: View, cut: Callable[[memoryview], list[memoryview]]) -> None:
        self._whole = whole
        self._cut = cut
        self._pieces: list[memoryview] = []

    def __enter__(self) -> list[memoryview]:
        whole = self._whole.__enter__()
        try:
            self._pieces = self._cut(whole)
        except BaseException as error:
            self._whole.__exit__(type(error), error, error.__traceback__)
            raise
        return list(self._pieces)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            try:
                piece.release()
            except BufferError:
                pass  # an array was made from it: the whole's end says so
        self._whole.__exit__(kind, error, trace)


def receive_into(peeked: View, buffer: Any) -> int:
    """Copy the message that a view shows into a buffer. How many bytes.

    Raises:
        TypeError, ValueError: it is not writable and contiguous, or too short. The message stays.
    """
    target = memoryview(buffer)
    if target.readonly or not target.c_contiguous:
        raise ValueError("recv_into needs a writable, contiguous buffer")
    target = target.cast("B")
    with peeked as view:
        length = len(view)
        if length > len(target):
            raise ValueError(f"the next message has {length} bytes, the buffer {len(target)}; it stays where it is")
        target[:length] = view
    return length
