"""`Claims`: messages of a lane that were sent, and are taken back before the other side has begun with them.

Two words in a memory object of two pages. The receiver writes the number of the message that it begins with, then looks
how far the sender has taken back; the sender writes how far, then looks what was begun. Each side's store must be seen
before its load, and only the sender, for whom it is rare, pays for that: by membarrier(2), which makes every
processor that runs a registered process fence. (Dekker's handshake, made asymmetric as in the doorbell.)
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import Any

from multikernel._core import failure, lib

_PAGE = mmap.PAGESIZE


class Claims:
    """One side of it. Messages are numbered from 1 up, in the order in which they are sent.

    Args:
        fd: of the object, from `make`; this side's from now on, and closed with it.
        sender: which side this is.
    """

    def __init__(self, fd: int, *, sender: bool) -> None:
        self._fd = fd
        self._sender = sender
        self._maps: list[mmap.mmap] = []
        self._words: list[memoryview] = []

    @classmethod
    def make(cls) -> Claims:
        """A new object, at its sender's side.

        Raises:
            OSError: no memory or no descriptors.
        """
        fd = os.memfd_create("claims", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, 2 * _PAGE)
        except BaseException:
            os.close(fd)
            raise
        claims = cls(fd, sender=True)
        claims._map()  # now: who takes back may have no descriptor left for it
        return claims

    def for_receiver(self) -> Claims:
        """The other side, to be passed to its process (fork, spawn or forkserver)."""
        return Claims(os.dup(self._fd), sender=False)

    def begin(self, number: int) -> bool:
        """The receiver begins with a message: whether it may. If not, it was taken back."""
        taken_back, begun = self._words or self._map()
        begun[0] = number
        return number >= taken_back[0]

    def reached(self) -> int:
        """To which message the receiver has come; it may go on at any moment."""
        _, begun = self._words or self._map()
        return begun[0]

    def take_back(self, below: int) -> int:
        """The sender takes back all messages numbered less than `below` with which the receiver has not begun.

        Returns:
            The number of the message that it came to last: those beyond are taken back. Those up to it are the
            receiver's to tell of: with the last ones it may not have begun, because it saw this call.

        Raises:
            OSError: membarrier is not available. Nothing is certain then; see `possible`.
        """
        taken_back, begun = self._words or self._map()
        taken_back[0] = below
        code = lib.mk_membarrier()  # pairs with the store and the load in `begin`, in the receiver's program order
        if code:
            raise failure(code, "a barrier on all processors")
        return begun[0]

    def close(self) -> None:
        """Unmap and close. Idempotent."""
        while self._words:
            self._words.pop().release()
        while self._maps:
            self._maps.pop().close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def _map(self) -> list[memoryview]:
        """Both words: how far was taken back (the sender's page), and what was begun (the receiver's)."""
        lib.mk_membarrier_register()
        for page, writable in ((0, self._sender), (1, not self._sender)):
            prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            self._maps.append(mmap.mmap(self._fd, _PAGE, mmap.MAP_SHARED, prot, offset=page * _PAGE))
        self._words = [memoryview(each).cast("Q") for each in self._maps]
        return self._words

    def __reduce__(self) -> tuple[Callable[..., Claims], tuple[Any, ...]]:
        from multiprocessing import reduction

        return _rebuild, (reduction.DupFd(self._fd), self._sender)


def possible() -> bool:
    """Whether this system has what `take_back` needs."""
    return not lib.mk_membarrier_register() and not lib.mk_membarrier()


def _rebuild(fd: Any, sender: bool) -> Claims:
    return Claims(fd.detach(), sender=sender)
