"""`Pipe`: multiprocessing's, over rings.

What travels as one record is told apart by its first byte: a pickle begins with 0x80, one with buffers out of band
with 1 (objects.py says how it goes on). The others are this module's own:

    2   raw bytes follow: `send_bytes`
    3   an unsigned 64-bit length follows: of a record that is too long for the ring and comes in the next ones
    4   a part of that record follows

A part that follows no 3, or a 3 that is not followed by all its parts, is what a sender leaves that was interrupted:
it is dropped.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from multikernel.errors import Closed, NotOwner, Timeout
from multikernel.shm.object_calls import ConnectionCalls
from multikernel.shm.ring import Ring

from .objects import HOT, Piece, from_record, lay_out, length_of, to_record

if TYPE_CHECKING:
    from multikernel.shm.receiver import Receiver
    from multikernel.shm.sender import Sender

CAPACITY = 256 * 1024
"""Of each direction, bytes: about what multiprocessing's pipes hold. What is longer goes in parts."""

LONGEST = CAPACITY // 8
"""Bytes of the longest record that is sent whole: so one is written while another is read."""

LOOK = 0.001
"""Seconds between two looks of a sender at whether the other end is there: each is a system call."""

_RAW, _LONG, _PART = 2, 3, 4
_RAW_BYTE = bytes([_RAW])
_ENDED = "the other end of this pipe is closed, or its process has ended"
_LENGTH = struct.Struct("=BQ")


class _Seen(Exception):
    """Ends the block of a peek without taking what was seen."""


class Connection(ConnectionCalls):
    """One end of a `Pipe`, with the methods of `multiprocessing.connection.Connection`.

    Until its first use it may be passed to a child process, any way that multiprocessing starts one, and closed here.
    The first use claims it, both its directions, for the process: from then on it cannot be passed on, and the other
    end learns when that process ends. One thread at a time may send, and one receive.
    """

    def __init__(self, sender: Sender | None, receiver: Receiver | None) -> None:
        self._tx = sender
        self._rx = receiver
        self._tx_send: Callable[[Any], None] | None = None  # of the sender, once that is claimed
        self._rx_recv: Callable[[], Any] | None = None
        self._look_again = 0.0
        self._ended = False  # a receive has seen it: who no longer sends does not receive
        self._closed = False
        self._long: tuple[bytearray, int] | None = None  # a record in parts, and how much of it has come

    # --- sending

    def _send(self, obj: Any) -> None:
        if self._tx_send is None:
            self._claim_sender()
        self._send_record(to_record(obj))

    def _send_record(self, record: bytes | list[Piece]) -> None:
        send = self._tx_send or self._claim_sender()
        self._look(monotonic())
        if isinstance(record, bytes):
            if len(record) <= LONGEST:
                send(record)
                return
            record = [record]
        self._send_pieces(record)

    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None:
        """Send bytes as one message; waits while the pipe is full.

        Args:
            buf: bytes-like and contiguous.
            offset: where in it they begin.
            size: how many; None: all the rest.

        Raises:
            ValueError: a part of `buf` that is not there.
            BrokenPipeError, OSError: as `send`.
        """
        send = self._tx_send or self._claim_sender()
        view = memoryview(buf).cast("B")
        if offset < 0:
            raise ValueError("offset is negative")
        if offset > len(view):
            raise ValueError("buffer length < offset")
        if size is None:
            size = len(view) - offset
        elif size < 0:
            raise ValueError("size is negative")
        elif offset + size > len(view):
            raise ValueError("buffer length < offset + size")
        self._look(monotonic())
        if size < 1024:  # joining so few bytes costs less than two pieces
            send(_RAW_BYTE + view[offset : offset + size])
        else:
            self._send_pieces([_RAW_BYTE, view[offset : offset + size]])

    def _look(self, now: float) -> None:
        """BrokenPipeError if nobody will receive. A ring would say so only when it is full, a pipe says it at once."""
        if now > self._look_again:
            if self._ended or (self._tx is not None and self._tx.closed):
                raise BrokenPipeError(_ENDED)
            self._look_again = now + LOOK

    def _send_pieces(self, pieces: list[Piece]) -> None:
        tx = self._tx
        assert tx is not None
        total = length_of(pieces)
        if total <= LONGEST:
            with tx.reserve(total) as view:
                lay_out(pieces, view)
            return
        tx.send(_LENGTH.pack(_LONG, total))
        for piece in pieces:
            whole = memoryview(piece)
            for at in range(0, len(whole), LONGEST):
                part = whole[at : at + LONGEST]
                with tx.reserve(1 + len(part)) as view:
                    view[0] = _PART
                    view[1:] = part

    # --- receiving

    def _recv_uncopied(self) -> Any:
        """`recv(copy=False)`."""
        record = self._record(None)
        return from_record(memoryview(record)[1:] if record[0] == _RAW else record, copy=False)

    def _recv(self, first: bytes | None = None) -> Any:
        """`recv`, after `first` was received if that is given."""
        record = self._record(first)
        # What came in parts is in memory that can be written, and nobody else's: arrays can stay there.
        copy = isinstance(record, bytes)
        return from_record(memoryview(record)[1:] if record[0] == _RAW else record, copy=copy)

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """The next message as bytes: what `send_bytes` was given, or the record of an object.

        Args:
            maxlength: most bytes that are acceptable.

        Raises:
            ValueError: `maxlength` is negative.
            OSError: the message is longer than `maxlength`; it was taken, and this end is closed for receiving.
            EOFError, OSError, CorruptLane: as `recv`.
        """
        if maxlength is not None and maxlength < 0:
            if self._rx_recv is None:
                self._claim_receiver()  # closed, or one that only sends, is said first
            raise ValueError("negative maxlength")
        record = self._record()
        start = record[0] == _RAW
        if maxlength is not None and len(record) - start > maxlength:
            self._refuse_more()
        return bytes(memoryview(record)[1:]) if start else bytes(record)

    def recv_bytes_into(self, buf: Any, offset: int = 0) -> int:
        """The next message into memory of one's own. Returns its length.

        Raises:
            ValueError: an offset that is not in the buffer.
            multiprocessing.BufferTooShort: the buffer is; its `args[0]` is the message.
            EOFError, OSError, CorruptLane: as `recv`.
        """
        target = memoryview(buf).cast("B")
        if offset < 0:
            raise ValueError("negative offset")
        if offset > len(target):
            raise ValueError("offset too large")
        record = self._record()
        message = memoryview(record)[record[0] == _RAW :]
        size = len(message)
        if size > len(target) - offset:
            from multiprocessing import BufferTooShort

            raise BufferTooShort(bytes(message))
        target[offset : offset + size] = message
        return size

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether `recv` would not wait: there is a message, or the other end is gone.

        Args:
            timeout: seconds to wait for that; None: no limit.
        """
        if self._rx_recv is None:
            self._claim_receiver()
        rx = self._rx
        assert rx is not None
        try:
            with rx.peek(timeout):
                raise _Seen
        except (_Seen, Closed):
            return True
        except Timeout:
            return False

    def _record(self, first: bytes | None = None) -> bytes | bytearray:
        """The next record, whole, in memory that is nobody else's; `first` was received of it, or before it."""
        recv = self._rx_recv or self._claim_receiver()
        try:
            while True:
                record: bytes
                if self._long is not None:  # also one that an exception has interrupted
                    whole = self._parts(*self._long)
                    if whole is not None:
                        return whole
                record, first = first or recv(), None
                if record[0] == _LONG:
                    self._set_long((bytearray(_LENGTH.unpack(record)[1]), 0))
                elif record[0] != _PART:
                    return record
        except Closed:
            self._ended, self._look_again = True, 0.0  # a dying process closes one thing after another
            self._open_way()
            raise EOFError(_ENDED) from None

    def _parts(self, whole: bytearray, at: int) -> bytearray | None:
        """The rest of a long record, which begins at `at`; None: it does not come, something else is next."""
        rx = self._rx
        assert rx is not None
        try:
            while at < len(whole):
                with rx.peek() as view:
                    if view[0] != _PART:
                        raise _Seen
                    whole[at : at + len(view) - 1] = view[1:]
                    at += len(view) - 1
                    self._long = whole, at
        except _Seen:
            self._set_long(None)
            return None
        self._set_long(None)
        return whole

    def _set_long(self, record: tuple[bytearray, int] | None) -> None:
        self._long = record
        self._open_way()

    # --- either

    def fileno(self) -> int:
        """A descriptor for event loops and `multiprocessing.connection.wait`.

        It is readable while `recv` would not wait; of an end that only sends, while `send` would not. It belongs to
        this end, and costs a system call or two in each call from then on.
        """
        if self._rx is not None:
            self._claim()
            return self._rx.fileno()
        self._claim()
        assert self._tx is not None
        return self._tx.fileno()

    def close(self) -> None:
        """Close this end; the other still gets what was sent. Of an end that nobody has used: this process's copy.

        Idempotent. Also done when the end is garbage-collected.
        """
        self._closed = True
        self._tx_send = self._rx_recv = None
        self._open_way()
        for end in (self._tx, self._rx):
            if end is not None:
                end.close()

    @property
    def closed(self) -> bool:
        """Whether this end was closed here."""
        return self._closed

    @property
    def readable(self) -> bool:
        """Whether it receives."""
        return self._rx is not None

    @property
    def writable(self) -> bool:
        """Whether it sends."""
        return self._tx is not None

    def _claim_sender(self) -> Callable[[Any], None]:
        self._claim()
        if self._tx is None:
            raise OSError("connection is read-only")
        self._tx_send = self._tx.send
        self._open_way()
        return self._tx_send

    def _claim_receiver(self) -> Callable[[], Any]:
        self._claim()
        if self._rx is None:
            raise OSError("connection is write-only")
        self._rx_recv = self._rx.recv
        self._open_way()
        return self._rx_recv

    def _open_way(self) -> None:
        """Let the calls in C use what is claimed and open; the next send looks at the other end."""
        receives = self._rx_recv is not None and self._long is None
        self._bind(self._tx if self._tx_send is not None else None, self._rx if receives else None, HOT)

    def _claim(self) -> None:
        """Claim both directions at once, so that the other end learns of ours in both."""
        if self._closed:
            raise OSError("handle is closed")
        for end in (self._tx, self._rx):
            if end is not None:
                _ = end.capacity  # asking claims it

    def _refuse_more(self) -> NoReturn:
        if self._tx is None:
            self.close()
        else:
            assert self._rx is not None
            self._rx.close()
            self._rx = self._rx_recv = None
            self._open_way()
        raise OSError("bad message length")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, NotOwner):  # not made whole, or another thread is in it
            self.close()

    def __reduce__(self) -> tuple[type[Connection], tuple[Sender | None, Receiver | None]]:
        if self._closed:
            raise OSError("handle is closed")
        return Connection, (self._tx, self._rx)

    def __repr__(self) -> str:
        directions = [name for name, end in (("sends", self._tx), ("receives", self._rx)) if end is not None]
        state = "closed" if self._closed else "claimed" if self._tx_send or self._rx_recv else "not claimed"
        return f"<Connection that {' and '.join(directions)}, {state}>"


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:  # noqa: N802 # multiprocessing's name
    """Two connected ends, for two processes or threads.

    Args:
        duplex: whether both send and receive; else the first only receives and the second only sends.
    """
    if not duplex:
        ring = Ring(CAPACITY)
        return Connection(None, ring.receiver()), Connection(ring.sender(), None)
    there, back = Ring(CAPACITY), Ring(CAPACITY)
    return Connection(there.sender(), back.receiver()), Connection(back.sender(), there.receiver())
