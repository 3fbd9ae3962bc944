"""JSON documents, with open descriptors beside them, between two processes.

The slow path of the library: requests, answers and the descriptors of lanes and pages travel here, messages
never do. A channel is an AF_UNIX socket of type SOCK_SEQPACKET, so that a document is one packet: it arrives
whole or not at all, and one that is refused leaves the next untouched. JSON and not pickle, because the other
side is not trusted.

What decides the shape:

* Each call is its own: MSG_DONTWAIT on every send and receive, then poll(2). Whether the socket itself is
  blocking is a flag of the open file, which a process that shares it could change under a host loop.
* Descriptors arrive close-on-exec (`socket.recv_fds` would give inheritable ones), in a buffer that holds
  exactly as many as are allowed. The kernel closes what does not fit and says so; that is an error here.
  If it is this process that may open no more of them, the document arrives without any: who asked is answered
  then, and a peer is not taken for one that lies.
* There is no thread and no lock, so a channel goes through fork(2) unharmed; who has no use for his
  copy closes it. One end of the same channel may serve several threads, a document is never mixed with
  another, but which of them gets an answer is for a layer above to arrange.
"""

from __future__ import annotations

import array
import json
import math
import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias, overload

from multikernel.errors import Closed, MessageTooLarge, MultikernelError, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

MAX_DOCUMENT = 64 * 1024
"""Most bytes of one document, as JSON."""

MAX_DESCRIPTORS = 16
"""Most descriptors that travel with one document. Even, because CMSG_SPACE rounds up to 8 bytes: room for an
odd number of them lets one more in."""

MAX_DEPTH = 32
"""Most objects and arrays inside one another. How deep the parser itself can go differs between Pythons; what
it lets through should not break whoever walks the document."""

Document: TypeAlias = dict[str, Any]
Received: TypeAlias = tuple[Document, list[int]]

_UCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid
_ROOM_FOR_DESCRIPTORS = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
_TOO_DEEP = f"a document nested deeper than {MAX_DEPTH}"
_LONGEST_POLL = 86_400.0  # seconds; poll(2) takes an int of milliseconds, the loop around it does the rest


class ProtocolError(MultikernelError):
    """The other side sent something that no multikernel sends; its descriptors are closed already.

    The channel is still in step: the next receive gets the next document. Whether to go on with such a peer is
    for the caller to decide.
    """


class Channel:
    """One end of a control connection.

    Args:
        sock: a connected AF_UNIX socket of type SOCK_SEQPACKET. The channel owns it from here on.

    Raises:
        ValueError: another family or type of socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET:
            raise ValueError(f"a channel needs an AF_UNIX SOCK_SEQPACKET socket, not {sock.family!r} {sock.type!r}")
        sock.setblocking(False)  # without it Python itself would wait, for as long as the socket's time-out says
        self._socket = sock

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected channels, each for one process."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def send(self, document: Document, fds: Sequence[int] = (), *, wait: bool = True) -> bool:
        """Send one document, whole, with copies of `fds`, which stay open here.

        Args:
            document: JSON-able; keys are strings; strings may hold what `os.fsdecode` makes of odd file names.
            fds: at most MAX_DESCRIPTORS open descriptors.
            wait: wait, without limit, while the other side has not read what is under way.

        Returns:
            True when it is on its way; False, and nothing was sent, when it would have had to wait and `wait` is
            False. `fileno()` turns writable when there is room.

        Raises:
            MessageTooLarge: more than MAX_DOCUMENT bytes. Nothing was sent, here and below.
            TypeError, ValueError: not JSON (NaN is not), nested deeper than MAX_DEPTH, too many descriptors.
            Closed: the other side is gone, or this end was closed.
            OSError: the system refuses the descriptors: one is not open (EBADF), or too many of this user's are
                under way already (ETOOMANYREFS).
        """
        data = _encode(document)
        if len(fds) > MAX_DESCRIPTORS:
            raise ValueError(f"{len(fds)} descriptors with one document; at most {MAX_DESCRIPTORS} are allowed")
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        while True:
            self._check_open()
            try:
                self._socket.sendmsg([data], ancillary, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if not wait:
                    return False
                self._poll(select.POLLOUT, None)
            except (BrokenPipeError, ConnectionResetError):
                raise Closed("cannot send: the other side of this channel is gone") from None
            else:
                return True

    @overload
    def receive(self, *, timeout: None = None) -> Received: ...
    @overload
    def receive(self, *, timeout: float) -> Received | None: ...
    def receive(self, *, timeout: float | None = None) -> Received | None:
        """Take the next document and the descriptors that came with it.

        Args:
            timeout: seconds to wait for it. None: no limit; 0: do not wait.

        Returns:
            The document and a list of descriptors, close-on-exec, which are the caller's to close; an empty list
            also where this process may not open as many as came (RLIMIT_NOFILE). None only with `timeout=0`, when
            nothing is there.

        Raises:
            Timeout: nothing came within `timeout` seconds (> 0).
            Closed: the other side is gone and all that it had sent has been taken, or this end was closed.
            ProtocolError: what came was larger than MAX_DOCUMENT, brought more descriptors than MAX_DESCRIPTORS,
                or is not one JSON object nested at most MAX_DEPTH deep. It is dropped, its descriptors are closed.
            ValueError: `timeout` is negative or not a number.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"a timeout is None or a number of seconds from 0 up, not {timeout!r}")
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._check_open()
            try:
                packet = self._socket.recvmsg(
                    MAX_DOCUMENT, _ROOM_FOR_DESCRIPTORS, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                if timeout == 0:
                    return None
                if not self._poll(select.POLLIN, deadline):
                    raise Timeout(f"nothing came on this channel within {timeout:g} s", timeout=timeout) from None
            except ConnectionResetError:
                # The peer went without having read all that was sent to it. The kernel says so once, and before
                # what the peer had sent: look again, first for that and then for the end of file.
                continue
            else:
                return _unpack(*packet[:3])

    def widen(self, size: int) -> None:
        """Let so many bytes be on their way from here, unread, or as many as the system allows: for `send`."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def peer(self) -> tuple[int, int, int]:
        """The pid, uid and gid of the process that connected, listened, or made the pair, as the kernel saw it then."""
        pid, uid, gid = _UCRED.unpack(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return pid, uid, gid

    def fileno(self) -> int:
        """The descriptor, for an event loop: readable while a document, or the end, is there. -1 once closed."""
        return self._socket.fileno()

    def detach(self) -> int:
        """Give the descriptor away, open, and close the channel without it."""
        return self._socket.detach()

    def replace(self, other: Channel) -> None:
        """Be the end of another channel from now on; `other` is closed, without its socket, and so is this end."""
        before, self._socket = self._socket, socket.socket(fileno=other.detach())
        before.close()

    def close(self) -> None:
        """Close this end. The other side gets what was sent, then Closed. Closing twice is fine."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Channel {'closed' if self.fileno() < 0 else f'fd={self.fileno()}'}>"

    def _check_open(self) -> None:
        if self._socket.fileno() < 0:
            raise Closed("this end of the channel has been closed")

    def _poll(self, event: int, deadline: float | None) -> bool:
        """Wait for `event` or an end of file; False once the deadline has passed. True may come early, too.

        A signal does not cut it short (PEP 475), unless its handler raises.
        """
        left = math.inf if deadline is None else max(deadline - time.monotonic(), 0.0)
        poll = select.poll()
        poll.register(self._socket, event)
        return bool(poll.poll(min(left, _LONGEST_POLL) * 1000.0)) or left > _LONGEST_POLL


def _encode(document: Document) -> bytes:
    # ASCII, so that lone surrogates, which stand for the odd bytes of a file name, survive as escapes.
    try:
        data = json.dumps(document, allow_nan=False, separators=(",", ":")).encode("ascii")
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if len(data) > MAX_DOCUMENT:
        raise MessageTooLarge(
            f"a document of {len(data)} bytes; at most {MAX_DOCUMENT} fit", size=len(data), limit=MAX_DOCUMENT
        )
    if _too_deep(document):
        raise ValueError(_TOO_DEEP)
    return data


def _unpack(data: bytes, ancillary: Iterable[tuple[int, int, bytes]], flags: int) -> Received:
    """The document and the descriptors of one packet; closes them if it raises."""
    fds = _descriptors(ancillary)
    try:
        if flags & socket.MSG_CTRUNC and len(fds) == MAX_DESCRIPTORS:
            raise ProtocolError(f"more descriptors with a document than the {MAX_DESCRIPTORS} that are allowed")
        if flags & socket.MSG_TRUNC:
            raise ProtocolError(f"a document of more than {MAX_DOCUMENT} bytes")
        if flags & socket.MSG_CTRUNC:  # there was room for more: it is we who may open none
            close_all(fds)
            fds = []
        elif not data and not fds:
            # End of file. An empty packet looks the same; none of ours is empty, so its sender has hung up too.
            raise Closed("the other side of this channel is gone")
        return _decode(data), fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return fds.tolist()


def _decode(data: bytes) -> Document:
    try:
        document = json.loads(data.decode("utf-8"), parse_constant=_not_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a document that is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ProtocolError(f"a document is a JSON object, not a {type(document).__name__}")
    if _too_deep(document):
        raise ProtocolError(_TOO_DEEP)
    return document


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _not_finite(text)


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text[:32]} is no finite number")


def _too_deep(document: Document) -> bool:
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list, tuple))
        ]
        if not level:
            return False
    return True


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors: what came with a document and nobody wants."""
    for fd in fds:
        os.close(fd)


def expect(fds: list[int], count: int, what: str, who: str = "this process") -> list[int]:
    """The descriptors that came with something, if they are as many as there must be; else they are closed.

    Args:
        fds: they.
        count: how many there must be.
        what: what they came with.
        who: the process that has taken it.

    Raises:
        MultikernelError: they are more, or fewer: also where `who` may open no more.
    """
    if len(fds) != count:
        close_all(fds)
        short = "" if fds else f". If they were sent, {who} may open no more: `ulimit -n` shows and sets how many"
        raise MultikernelError(f"{what} comes with {count} descriptors, not with {len(fds)}{short}.")
    return fds
