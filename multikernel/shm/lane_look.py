"""A lane seen from outside, by descriptors of its two objects: how far it is, and what lies in it unread.

For who is none of its two ends: nothing is mapped, and all that is read is input, copied once. What is read of a lane
whose ends are alive may be out of date by the time that it is returned.
"""

from __future__ import annotations

import os
import struct
import sys
from dataclasses import dataclass

from multikernel._core import lib

_HEADER = struct.Struct("=IHHQ")  # struct mk_record
_ALIGN = 8  # MK_RECORD_ALIGN
NUMBER = ~(3 << 62)
"""The bits of an id that are its number: without MK_ID_REPLY and MK_ID_REQUEST."""


@dataclass(frozen=True, slots=True)
class Unread:
    """The header of a message that was not given back: its receiver was dealing with it, or had not come to it.

    sender: id of the party that sent it; length: of the payload, bytes
    """

    sender: int
    type: int
    subtype: int
    id: int
    length: int


@dataclass(frozen=True, slots=True)
class Lane:
    """Descriptors of the two objects, which stay the caller's.

    producer, consumer: of whom sends and of whom receives; capacity: bytes; sender: id of the one
    """

    producer: int
    consumer: int
    capacity: int
    sender: int

    def released(self) -> int:
        """How many bytes its receiver has given back."""
        return _word(self.consumer, lib.MK_PY_TAIL_AT)

    def seen(self) -> int:
        """Up to where its receiver has had messages in its hands; what is released may lie behind that."""
        return _word(self.consumer, lib.MK_PY_SEEN_AT)

    def waits(self) -> bool:
        """Whether anything lies there that was not given back."""
        return _word(self.producer, lib.MK_PY_HEAD_AT) != self.released()

    def closed(self) -> bool:
        """Whether its receiver has closed it."""
        return bool(_word(self.consumer, lib.MK_PY_RECEIVER_STATE_AT, 4) == lib.MK_END_CLOSED)

    def unread(self, limit: int) -> list[Unread]:
        """The headers of what was not given back, the oldest `limit` of them. Ends where one cannot be."""
        head, at = _word(self.producer, lib.MK_PY_HEAD_AT), self.released()
        found: list[Unread] = []
        while len(found) < limit and _HEADER.size <= (head - at) % 2**64 <= self.capacity:
            length, kind, subtype, number = _HEADER.unpack(self._header(at % self.capacity))
            size = -(-(_HEADER.size + length) // _ALIGN) * _ALIGN
            if size > (head - at) % 2**64:
                break
            found.append(Unread(self.sender, kind, subtype, number & NUMBER, length))
            at += size
        return found

    def _header(self, at: int) -> bytes:
        # The data area ends where it begins: the one who maps it sees it twice in a row.
        data = os.sysconf("SC_PAGESIZE")
        first = os.pread(self.producer, min(_HEADER.size, self.capacity - at), data + at)
        return (first + os.pread(self.producer, _HEADER.size - len(first), data)).ljust(_HEADER.size, b"\0")


def is_parked(consumer: int) -> bool:
    """Whether the receiver whose object this is sleeps until something comes, by its own account."""
    return bool(_word(consumer, lib.MK_PY_RECEIVER_PARKED_AT, 4) & lib.MK_PARKED_MODE >= lib.MK_PARKED_FUTEX)


def _word(fd: int, at: int, size: int = 8) -> int:
    return int.from_bytes(os.pread(fd, size, at), sys.byteorder)
