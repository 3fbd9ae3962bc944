"""Parcels: records too large for a ring, as memory objects that are passed on by descriptor.

Nobody waits for the other side to take a parcel: what is in it lies in memory of its own until it is opened. The sender
copies into it once; the receiver maps it privately, so that arrays in it are used where they lie.
"""

from __future__ import annotations

import array
import mmap
import os
import socket
import struct

_NUMBER = struct.Struct("=Q")
_ROOM = socket.CMSG_SPACE(array.array("i").itemsize)


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a way for parcels."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(way: socket.socket, number: int, pieces: list[bytes | bytearray | memoryview], *, wait: bool) -> bool:
    """Send one. Whether it went out; never False if it may `wait`.

    Args:
        way: one end of a `pair`.
        number: of the message that it belongs to; they grow.
        pieces: what is in it, laid out in a row.
        wait: for room among the parcels that nobody has opened yet.

    Raises:
        OSError: no memory or descriptors, or the other side is gone.
    """
    fd = os.memfd_create("parcel", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(fd, 0, sum(map(len, pieces)))  # shortage is an error here, and no SIGBUS later
        with mmap.mmap(fd, 0, mmap.MAP_SHARED) as target:
            for piece in pieces:
                target.write(piece)
        socket.send_fds(way, [_NUMBER.pack(number)], [fd], 0 if wait else socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def receive(way: socket.socket, number: int) -> memoryview:
    """What is in the parcel of message `number`, which was sent before that message. Earlier ones are dropped.

    The memory is private, writable, and lives as long as what refers to it.
    """
    while True:
        data, ancillary, _, _ = way.recvmsg(_NUMBER.size, _ROOM, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
        found = array.array("i")
        for _, _, raw in ancillary:
            found.frombytes(raw)
        try:
            if len(found) == 1 and _NUMBER.unpack(data)[0] == number:
                return memoryview(mmap.mmap(found[0], 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE))
            if not data:
                raise EOFError("the other side of the way for parcels is gone")
        finally:
            for fd in found:
                os.close(fd)
