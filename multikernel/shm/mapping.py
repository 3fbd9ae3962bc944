"""A mapped memory object."""

from __future__ import annotations

import errno
from functools import partial
from typing import Any

from multikernel._core import failure, ffi, lib
from multikernel.errors import NotOwner

from .objects import _KINDS, Kind, refusal


class Mapping:
    """A mapping of a whole memory object, unmapped by `close` or when it goes.

    One thread may close it while another reads: it is unmapped when the last call that uses it is over, since each
    pointer that `cast` gave keeps it.
    """

    __slots__ = ("_base", "_generation")

    def __init__(self, base: Any, size: int) -> None:
        self._generation = lib.mk_fork_generation()
        self._base = ffi.gc(base, partial(_unmap, size, self._generation))

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
        """The mapping as a C pointer of type `kind`. What is mapped stays so until that pointer goes, too."""
        return ffi.gc(ffi.cast(kind, self._base), partial(_let_go, self._base))

    def opened(self, pointer: Any) -> Any:
        """`pointer`, as `cast` gave it. ValueError after `close`; NotOwner in a forked copy, where it is not mapped."""
        if self._base is None or pointer is None:
            raise ValueError("this page was closed")
        if self._generation != lib.mk_fork_generation():
            raise NotOwner("this page was mapped by the process that this one was forked from")
        return pointer

    def close(self) -> None:
        """Let go of it. Idempotent."""
        self._base = None


def _unmap(size: int, generation: int, base: Any) -> None:
    if generation == lib.mk_fork_generation():  # nothing is mapped in a forked copy
        lib.mk_object_unmap(base, size)


def _let_go(_base: Any, _pointer: Any) -> None:
    """Called with the mapping that the pointer has kept until now."""


def _map(fd: int, size: int, *, writable: bool) -> Any:
    base = ffi.new("void **")
    code = lib.mk_object_map(fd, size, writable, base)
    if code:
        raise failure(code, f"mapping a memory object of {size} bytes")
    return base[0]
