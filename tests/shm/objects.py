"""Lane objects made by hand, by the book and against it: the layout is that of multikernel/abi.h."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from types import TracebackType
from typing import Any, Self

from multikernel._core import lib

MAGIC = 0x4C4E524B49544C4D
HEADER = struct.Struct("=QIIQQIIIIQII")  # struct mk_object
PAGE = os.sysconf("SC_PAGESIZE")
HEAD = TAIL = 128  # struct mk_producer, struct mk_consumer
IPI_SEQUENCE = 136
PARKED = 256
STATE = 260
IPI = 384
OPEN = 1

SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
OWNER_SEALS = 0x0010 | fcntl.F_SEAL_SEAL  # F_SEAL_FUTURE_WRITE, which Python's fcntl knows from 3.13 on
ALL_SEALS = SIZE_SEALS | OWNER_SEALS


def header(kind: int, size: int, capacity: int, **other: int) -> bytes:
    fields = {
        "magic": MAGIC,
        "abi": lib.MK_ABI_VERSION,
        "kind": kind,
        "size": size,
        "capacity": capacity,
        "data_offset": PAGE,
        "element": 0,
        "flags": 0,
        "owner_id": 7,
        "epoch": 1,
        "owner_pid": os.getpid(),
        "reserved": 0,
    }
    assert other.keys() <= fields.keys()
    return HEADER.pack(*(fields | other).values())


class Object:
    """A memory object whose page this process goes on writing, as its owner does. `fd` is for whoever attaches it."""

    def __init__(
        self,
        kind: int,
        capacity: int = 4096,
        *,
        seals: int = ALL_SEALS,
        size: int = 0,
        allocate: bool = True,
        **other: int,
    ) -> None:
        real = PAGE + (capacity if kind == lib.MK_KIND_PRODUCER else 0)
        writable = os.memfd_create("lane:by hand", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(writable, size or real)
        if allocate:
            os.posix_fallocate(writable, 0, size or real)
        os.pwrite(writable, header(kind, other.pop("says", size or real), capacity, **other)[: size or real], 0)
        self.page = mmap.mmap(writable, size or real)
        fcntl.fcntl(writable, fcntl.F_ADD_SEALS, seals)
        self.fd = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
        os.close(writable)
        if size == 0:
            self.word(STATE, OPEN, "I")

    def word(self, offset: int, value: int, form: str = "Q") -> None:
        """Write one word of the page, whatever it is. One word at a time is written whole."""
        with memoryview(self.page).cast(form) as words:
            words[offset // struct.calcsize(form)] = value

    def record(self, position: int, payload: bytes, length: int | None = None, id_: int = 1) -> int:
        """Write a record into the data; its length may be a lie. Where the next one begins."""
        at = PAGE + position
        size = (16 + len(payload) + 7) & ~7
        self.page[at : at + 16 + len(payload)] = (
            struct.pack("=IHHQ", len(payload) if length is None else length, lib.MK_MSG_USER, 0, id_) + payload
        )
        return position + size

    def close(self) -> None:
        self.page.close()
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def producer(**other: Any) -> Object:
    return Object(lib.MK_KIND_PRODUCER, **other)


def consumer(**other: Any) -> Object:
    return Object(lib.MK_KIND_CONSUMER, **other)
