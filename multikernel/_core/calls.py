"""The calls of which a program makes millions, in Python: what the extension `_hot` does in C, over the same core.

A base class each of `Sender`, `Receiver`, the ends of mailboxes and broadcasts, `Queue` and a Pipe's `Connection`. Each
public call here is a plain call of the method with an underscore in front; the C one does the common case itself (a
claimed end, bytes, room or a message there) and calls that method for all else. The docstrings here are the C methods'
as well: build.py puts them there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self


class SendCalls:
    """What sends: base class of `Sender`."""

    __slots__ = ()

    _send: Callable[[Any, float | None], None]
    _try_send: Callable[[Any], bool]
    _send_many: Callable[[Iterable[Any], float | None], int]
    _try_send_many: Callable[[Iterable[Any]], int]

    def send(self, payload: Any, timeout: float | None = None) -> None:
        """Send one message, copied; waits while the ring is full.

        Args:
            payload: bytes-like and contiguous, or a list or tuple of such pieces, which become one message; on a ring
                with a dtype an array of that dtype and one element's shape.
            timeout: seconds to wait for room. None: no limit; 0: do not wait.

        Raises:
            TypeError, ValueError: not what this ring carries. Nothing was sent.
            MessageTooLarge: it would not fit into an empty ring. Nothing was sent.
            TimeoutError: no room within `timeout`. Nothing was sent.
            Closed: the receiver is gone.
        """
        self._send(payload, timeout)

    def try_send(self, payload: Any, /) -> bool:
        """As `send`, without waiting: whether there was room."""
        return self._try_send(payload)

    def send_many(self, messages: Iterable[Any], timeout: float | None = None) -> int:
        """Send all messages, published many at a time. Returns how many.

        Args:
            messages: each as for `send`; on a ring with a dtype one array of shape (n, *shape).
            timeout: seconds for all of them.

        Raises:
            TypeError, ValueError: one of them is not what this ring carries. Nothing was sent.
            TimeoutError, Closed, MessageTooLarge: with `.sent`, how many went out before.
        """
        return self._send_many(messages, timeout)

    def try_send_many(self, messages: Iterable[Any], /) -> int:
        """As `send_many`, without waiting: how many there was room for."""
        return self._try_send_many(messages)

    def _bind(self, address: int, *elements: Any) -> None:
        """The extension's calls would find the claimed end at this address."""


class RecvCalls:
    """What receives: base class of `Receiver`."""

    __slots__ = ()

    _recv: Callable[[float | None], Any]
    _try_recv: Callable[[], Any]
    _recv_many: Callable[[int, float | None], Any]
    _try_recv_many: Callable[[int], Any]
    _recv_into: Callable[[Any, float | None], int]
    _next: Callable[[], Any]

    def recv(self, timeout: float | None = None) -> Any:
        """The next message, copied; waits while the ring is empty.

        Args:
            timeout: seconds to wait. None: no limit; 0: do not wait.

        Returns:
            bytes; on a ring with a dtype an array of one element's shape, or a numpy scalar where that is ().

        Raises:
            TimeoutError: nothing came within `timeout`.
            Closed: the sender is gone and all that it had sent has been received.
            CorruptLane: the sender wrote what cannot be.
        """
        return self._recv(timeout)

    def try_recv(self) -> Any:
        """As `recv`, without waiting; None when nothing is there."""
        return self._try_recv()

    def recv_many(self, limit: int, timeout: float | None = None) -> Any:
        """Up to `limit` messages, oldest first. Waits for the first, then takes what is there.

        Args:
            limit: most messages to take, >= 1.
            timeout: seconds to wait for the first.

        Returns:
            A list of bytes; on a ring with a dtype an array of shape (n, *shape), 1 <= n <= limit. Copies both.

        Raises:
            ValueError: `limit` is below 1.
            TimeoutError, Closed: as `recv`.
        """
        return self._recv_many(limit, timeout)

    def try_recv_many(self, limit: int, /) -> Any:
        """As `recv_many`, without waiting: an empty list or array when nothing is there."""
        return self._try_recv_many(limit)

    def recv_into(self, buffer: Any, timeout: float | None = None) -> int:
        """Receive into memory of one's own.

        Args:
            buffer: a writable contiguous buffer. Records: at least as long as the next one, else ValueError and the
                record stays. With a dtype: an array of shape (n, *shape), n >= 1.
            timeout: seconds to wait.

        Returns:
            Bytes of the record; with a dtype the number of elements, 1 <= count <= n.

        Raises:
            TypeError, ValueError: not such a buffer, or too short for the next record. Nothing was taken.
            TimeoutError, Closed: as `recv`.
        """
        return self._recv_into(buffer, timeout)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._next()

    def _bind(self, address: int, *elements: Any) -> None:
        """The extension's calls would find the claimed end at this address."""


class FanCalls:
    """What receives from a mailbox, or from a broadcast that misses: base class of `FanReceiver`."""

    _recv: Callable[[float | None], bytes]
    _try_recv: Callable[[], bytes | None]
    _recv_many: Callable[[int, float | None], list[bytes]]
    _try_recv_many: Callable[[int], list[bytes]]
    _next: Callable[[], bytes]

    def recv(self, timeout: float | None = None) -> bytes:
        """The next message, copied; waits while there is none.

        Args:
            timeout: seconds to wait. None: no limit; 0: do not wait.

        Raises:
            TimeoutError: nothing came within `timeout`.
            Closed: nobody is left who could send, and all that had been sent has been received.
            CorruptLane: a sender wrote what cannot be. In a mailbox (`.sender`: its number) it is cut off, and the
                others go on.
        """
        return self._recv(timeout)

    def try_recv(self) -> bytes | None:
        """As `recv`, without waiting; None when nothing is there."""
        return self._try_recv()

    def recv_many(self, limit: int, timeout: float | None = None) -> list[bytes]:
        """Up to `limit` messages. Waits for the first, then takes what is there; in a mailbox of one sender in turn.

        Of a broadcast, those that it missed lay before the first: none is lacking between two of a list. A sender that
        has just joined a mailbox is taken in when the others have nothing, or within a millisecond.

        Args:
            limit: most messages to take, >= 1.
            timeout: seconds to wait for the first.

        Raises:
            ValueError: `limit` is below 1.
            TimeoutError, Closed, CorruptLane: as `recv`.
        """
        return self._recv_many(limit, timeout)

    def try_recv_many(self, limit: int, /) -> list[bytes]:
        """As `recv_many`, without waiting: an empty list when nothing is there."""
        return self._try_recv_many(limit)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        return self._next()

    def _bind(self, address: int, mailbox: bool) -> None:
        """The extension's calls would find the claimed end at this address."""


class MailboxCalls(FanCalls):
    """The same, with who sent it: base class of `MailboxReceiver`."""

    _recv_from: Callable[[float | None], tuple[int, bytes]]
    _try_recv_from: Callable[[], tuple[int, bytes] | None]
    _recv_many_from: Callable[[int, float | None], list[tuple[int, bytes]]]
    _try_recv_many_from: Callable[[int], list[tuple[int, bytes]]]

    def recv_from(self, timeout: float | None = None) -> tuple[int, bytes]:
        """As `recv`, with the number of who sent it first (`MailboxSender.number`)."""
        return self._recv_from(timeout)

    def try_recv_from(self) -> tuple[int, bytes] | None:
        """As `recv_from`, without waiting; None when nothing is there."""
        return self._try_recv_from()

    def recv_many_from(self, limit: int, timeout: float | None = None) -> list[tuple[int, bytes]]:
        """As `recv_many`, each with the number of who sent it."""
        return self._recv_many_from(limit, timeout)

    def try_recv_many_from(self, limit: int, /) -> list[tuple[int, bytes]]:
        """As `recv_many_from`, without waiting: an empty list when nothing is there."""
        return self._try_recv_many_from(limit)


class CastCalls:
    """What sends to all: base class of `BroadcastSender`."""

    _send: Callable[[Any, float | None], None]
    _try_send: Callable[[Any], bool]

    def send(self, payload: Any, timeout: float | None = None) -> None:
        """Send one message to all receivers, copied once. Waits for the slowest, where the broadcast does.

        Args:
            payload: bytes-like and contiguous.
            timeout: seconds to wait for room. None: no limit; 0: do not wait.

        Raises:
            TypeError, ValueError: not bytes-like, not contiguous.
            MessageTooLarge: it would never fit; with slow="miss" a message takes half of the capacity at most.
            TimeoutError: the slowest receiver made no room within `timeout`.
            Closed: all receivers are gone, and there will be no more.
            CorruptLane: a receiver (`.receiver`: how many were made before it) wrote what cannot be. It is cut off.
            Nothing was sent, in any of these cases.
        """
        self._send(payload, timeout)

    def try_send(self, payload: Any, /) -> bool:
        """As `send`, without waiting: whether there was room for all."""
        return self._try_send(payload)

    def _bind(self, address: int) -> None:
        """The extension's calls would find the claimed end at this address."""


class QueueCalls:
    """What puts objects into a queue and gets them: base class of `Queue`."""

    _put: Callable[[Any, bool, float | None], None]
    _get: Callable[..., Any]

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an object; waits for a place where those are limited. Copied once.

        Args:
            obj: anything that can be pickled.
            block: False: do not wait.
            timeout: seconds to wait; None: no limit.

        Raises:
            queue.Full: there was no place. Nothing was put.
            ValueError: this process has closed the queue.
            pickle.PicklingError, TypeError, and what the object's methods raise: it cannot be pickled.
            OSError: no memory is left for it.
        """
        self._put(obj, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None, *, copy: bool = True) -> Any:
        """Take an object; waits for one. Copied once, or not at all.

        Args:
            block: False: do not wait.
            timeout: seconds to wait; None: no limit.
            copy: False: the arrays of an object of more than 64 KiB are read-only views of where it was put. The memory
                is given back when the last of them goes; others can go on putting and getting meanwhile.

        Raises:
            queue.Empty: nothing came.
            ValueError: this process has closed the queue.
            CorruptLane: a process has written into the queue what cannot be.
        """
        return self._get(block, timeout, copy=copy)

    def _bind(self, put_to: int, take_from: int, hot: Any) -> None:
        """The extension's calls would find the queue at these addresses."""


class ConnectionCalls:
    """What sends objects and receives them: base class of a Pipe's `Connection`."""

    _send: Callable[[Any], None]
    _recv: Callable[[], Any]
    _recv_uncopied: Callable[[], Any]

    def send(self, obj: Any) -> None:
        """Send an object, pickled; waits while the pipe is full. The data of arrays are copied once.

        Raises:
            BrokenPipeError: the other end is closed, or its process has ended.
            OSError: this end is closed, or only receives.
            pickle.PicklingError, TypeError, and what the object's methods raise: it cannot be pickled.
        """
        self._send(obj)

    def recv(self, *, copy: bool = True) -> Any:
        """The next object; waits for it. The data of arrays in a short message are copied twice, in a long one once.

        Args:
            copy: False: once in a short one, too. Arrays of it are then read-only, and keep the message alive.

        Raises:
            EOFError: the other end is closed, or its process has ended, and all that it had sent was received.
            OSError: this end is closed, or only sends.
            CorruptLane: the other side wrote what cannot be.
        """
        return self._recv() if copy else self._recv_uncopied()

    def _bind(self, sender: Any, receiver: Any, hot: Any) -> None:
        """The extension's calls would use these ends."""
