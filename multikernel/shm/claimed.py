"""What the ends of mailboxes and broadcasts share: being claimed, closed, forgotten, and what goes wrong."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

from multikernel._core import failure, ffi, lib
from multikernel.errors import Closed, CorruptLane, NotOwner, Timeout

from .objects import check, refused

if TYPE_CHECKING:
    from .handles import Bundle


class FanEnd:
    """An end that is a handle until its first use.

    Args:
        bundle: what it takes to claim it.
    """

    role: ClassVar[str]

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._c: Any = None  # what the core has of it, once it is claimed
        self._owner = 0  # pid of who claimed it
        self._closed = False
        self._told: set[Callable[[], object]] = set()  # when it is closed here

    def _claimed(self) -> Any:
        """The end in C, claimed for this process by the first call."""
        return self._c if self._c is not None else self._claim()

    def _claim(self) -> Any:
        if self._closed:
            raise Closed(f"this {self.role} was closed here")
        fds = self._bundle.give_up()
        self._owner = os.getpid()
        try:
            self._c = self._make(fds)
        except BaseException:
            if self._c is None:
                self._bundle.take_back(fds)
            raise
        return self._c

    def _make(self, fds: tuple[int, ...]) -> Any:
        """Claim it. The descriptors are its own then; after an error that left `_c` None they are all the caller's."""
        raise NotImplementedError

    def _close(self, c: Any) -> int:
        """Close the end in C: 0 or -EBUSY."""
        raise NotImplementedError

    def _let_go(self) -> None:
        """Close what it has beside the end in C."""

    def close(self) -> None:
        """Close this end. Idempotent.

        Raises:
            NotOwner: another thread is using it.
        """
        if self._c is not None and not self._closed:
            if self._close(self._c):
                self._fail(-errno.EBUSY)
            self._let_go()
        self._closed = True
        self._bundle.close()
        while self._told:
            self._told.pop()()

    def on_close(self, call: Callable[[], object]) -> None:
        """Call `call()` when this end has been closed here, unless `not_on_close(call)` came first."""
        self._told.add(call)

    def not_on_close(self, call: Callable[[], object]) -> None:
        """Take `on_close` back."""
        self._told.discard(call)

    def _pass_on(self) -> tuple[Any, ...]:
        """What the end is made of again elsewhere. NotOwner if it was claimed."""
        if self._c is not None:
            raise NotOwner(f"this {self.role} is claimed by this process: it can no longer be passed on")
        return (self._bundle,)

    def _fail(self, code: int, *, timeout: float | None = None, peer: str = "the other side") -> NoReturn:
        if code == -errno.EBADF:
            raise Closed(f"this {self.role} was closed here")
        if code == -errno.EBUSY:
            raise NotOwner(f"this {self.role} is in use by another thread, or a view of it is still open")
        if code == -errno.ECHILD:
            raise NotOwner(f"this {self.role} belongs to the process that this one was forked from")
        if code in (-errno.ETIMEDOUT, -errno.EAGAIN):
            within = f" within {timeout:g} s" if timeout else ""
            raise Timeout(f"nothing came from {peer}{within}", timeout=timeout)
        raise failure(code, self.role)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if getattr(self, "_c", None) is None or self._closed:
            return
        if self._owner != os.getpid():  # a forked copy: the end is another's
            self._let_go()
            return
        _warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "not claimed" if self._c is None else "claimed"
        return f"<{type(self).__name__}, {state}>"


def claim_lane_receiver(fds: Sequence[int], *, capacity: int | None = None) -> Any:
    """Claim the receiving end of a lane of records: a struct mk_receiver **, closed with its last reference.

    Args:
        fds: own, peer, socket, as a `Handle` has them. They stay the caller's.
        capacity: what the lane must have; None: not looked at.

    Raises:
        NotOwner: somebody else has claimed it.
        CorruptLane, OSError: the descriptors are not those of such an end.
    """
    own, peer, socket = fds
    there = check(own, kind="consumer", owned=False, element=0)
    if capacity is not None and there != capacity:
        raise CorruptLane(f"a lane of {there} bytes, where all have {capacity}", expected=capacity, found=there)
    slot = ffi.gc(ffi.new("struct mk_receiver **"), lib.mk_py_drop_receiver)
    why = ffi.new("uint32_t *")
    code = lib.mk_receiver_claim(slot, own, ffi.NULL, why)
    if code == -errno.EPERM:
        raise NotOwner("this receiver was claimed already: it belongs to whoever used it first")
    if code:
        raise refused(code, why[0], own, "consumer")
    side = os.dup(socket)
    code = lib.mk_receiver_attach(slot[0], peer, 0, side, -1, why)
    if code:
        os.close(side)
        raise refused(code, why[0], peer, "producer")
    return slot
