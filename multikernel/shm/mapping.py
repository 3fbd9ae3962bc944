"""A mapped memory object."""

from __future__ import annotations

import errno
from typing import Any

from multikernel._core import failure, ffi, lib
from multikernel.errors import NotOwner

from .objects import _KINDS, Kind, refusal


class Mapping:
    """A mapping of a whole memory object, unmapped by `close` or when it goes."""

    __slots__ = ("_base", "_generation", "_size")

    def __init__(self, base: Any, size: int) -> None:
        self._base = base
        self._size = size
        self._generation = lib.mk_fork_generation()

    @classmethod
    def own(cls, fd: int, size: int) -> Mapping:
        """Map an object writable and make that the last writable mapping there will ever be."""
        mapping = cls(_map(fd, size, writable=True), size)
        code = lib.mk_object_seal(fd)
        if code == -errno.EPERM:
            mapping.close()
            raise NotOwner("this memory object belongs to somebody else")
        if code:
            mapping.close()
            raise failure(code, "sealing a memory object")
        return mapping

    @classmethod
    def peer(cls, fd: int, kind: Kind) -> Mapping:
        """Map somebody else's object read-only, after a look at its seals, size and header. CorruptLane if refused."""
        header = ffi.new("struct mk_object *")
        why = ffi.new("uint32_t *")
        code = lib.mk_object_check(fd, _KINDS[kind], True, header, why)
        if code:
            raise refusal(code, why[0], header, kind)
        return cls(_map(fd, header.size, writable=False), header.size)

    def cast(self, kind: str) -> Any:
        """The mapping as a C pointer of type `kind`; not to be used after `close`."""
        return ffi.cast(kind, self._base)

    def check_open(self) -> None:
        """ValueError after `close`; NotOwner in a forked copy, where nothing is mapped."""
        if self._base is None:
            raise ValueError("this page was closed")
        if self._generation != lib.mk_fork_generation():
            raise NotOwner("this page was mapped by the process that this one was forked from")

    def close(self) -> None:
        """Unmap. Idempotent."""
        base, self._base = self._base, None
        if base is not None and self._generation == lib.mk_fork_generation():
            lib.mk_object_unmap(base, self._size)

    def __del__(self) -> None:
        self.close()


def _map(fd: int, size: int, *, writable: bool) -> Any:
    base = ffi.new("void **")
    code = lib.mk_object_map(fd, size, writable, base)
    if code:
        raise failure(code, f"mapping a memory object of {size} bytes")
    return base[0]
