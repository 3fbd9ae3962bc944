"""What the two ends of a claimed lane share: claiming, attaching, waiting, closing, and what goes wrong.

Rings and links are made of a `LaneSender` (lane_sender.py) and a `LaneReceiver` (lane_receiver.py). One call into the
core does one message, waiting included. `-EINTR` comes back from it so that the interpreter can run its signal
handlers; the same call is then made again with the same deadline. Such a handler may raise between any two calls
(KeyboardInterrupt does): what a call has taken from the core is given back then, so that the end stays usable.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from multikernel._core import failure, ffi, lib
from multikernel.errors import Closed, CorruptLane, MessageTooLarge, NotOwner, Timeout
from multikernel.units import format_size

from .objects import Kind, refused
from .waiting import WaitPolicy, policy_number

_WRONG = {
    lib.MK_BAD_HEAD: "head",
    lib.MK_BAD_TAIL: "tail",
    lib.MK_BAD_LENGTH: "record length",
    lib.MK_BAD_NUMBER: "record number",
}


class PeerChanged(Exception):
    """The host has published something of the peer: look at that, `watch_fate` again, and make the call again."""

    sent = 0
    """Messages of a batch that were sent before."""


class LaneEnd:
    """One end of a lane that this process has claimed.

    Args:
        fd: a writable descriptor of this side's object; still the caller's afterwards.
        peer: what the other end is called in errors.
        wait: how a waiting call spends the time.

    Raises:
        NotOwner: the object was claimed before.
        CorruptLane: it is no such object.
    """

    __slots__ = ("__weakref__", "_closed", "_counters", "_end", "_fate", "_peer", "_slot", "_told")

    role: ClassVar[str]
    _own_kind: ClassVar[Kind]
    _peer_kind: ClassVar[Kind]

    def __init__(self, fd: int, peer: str, *, wait: WaitPolicy = "adaptive") -> None:
        policy = policy_number(wait)
        self._peer = peer
        self._closed = False
        self._told: set[Callable[[], object]] = set()  # of its close, and of another peer
        self._fate: Any = None  # keeps the page that the core looks at
        self._counters: Any = None  # keeps what the core counts in
        # What lies in the slot is closed and freed with it, so that an exception at any point leaves nothing claimed
        # behind, and no call of another thread ever meets freed memory.
        self._slot = self._new_slot()
        why = ffi.new("uint32_t *")
        code = self._claim(fd, why)
        if code == -errno.EPERM:
            raise NotOwner("this end was claimed already: it belongs to whoever used it first")
        if code:
            raise refused(code, why[0], fd, self._own_kind)
        self._end = self._end_of_slot()
        lib.mk_py_policy(self._end, policy)

    def _new_slot(self) -> Any:
        raise NotImplementedError

    def _claim(self, fd: int, why: Any) -> int:
        raise NotImplementedError

    def _attach(self, fd: int, owned: bool, socket_fd: int, pidfd: int, why: Any) -> int:
        raise NotImplementedError

    def _succeed(self, fd: int, why: Any) -> int:
        raise NotImplementedError

    def _resume(self, fd: int, pidfd: int, why: Any) -> int:
        raise NotImplementedError

    def _end_of_slot(self) -> Any:
        raise NotImplementedError

    def attach(self, peer_fd: int, *, owned: bool, socket_fd: int = -1, pidfd: int = -1) -> None:
        """Attach the other side's object. The socket and the pidfd belong to this end from then on.

        Args:
            peer_fd: read-only; still the caller's afterwards.
            owned: whether it must have been sealed by its owner already (links), or may be claimed later (rings).
            socket_fd: this side of the lane's socket pair.
            pidfd: of the peer's process; -1: it comes over the socket.

        Raises:
            CorruptLane: it is not the other half of this lane. The descriptors are still the caller's.
        """
        why = ffi.new("uint32_t *")
        code = self._attach(peer_fd, owned, socket_fd, pidfd, why)
        if code:
            raise refused(code, why[0], peer_fd, self._peer_kind, owned=owned)

    def succeed(self, predecessor_fd: int) -> None:
        """Go on where this side's object of an earlier incarnation ends: before anything went through this end.

        Args:
            predecessor_fd: that object, read-only; still the caller's afterwards.

        Raises:
            CorruptLane: it is not, or what stands in it cannot be.
        """
        why = ffi.new("uint32_t *")
        code = self._succeed(predecessor_fd, why)
        if code == -errno.EPROTO:
            raise refused(code, why[0], predecessor_fd, self._own_kind, owned=True)
        if code:
            self.fail(code)

    def due(self) -> None:
        """The peer is dead and has a successor soon: be as if it lived and was silent, until the socket is rung.

        Wait sets that this end is in are to be taken out before.

        Raises:
            NotOwner: another thread is using it, or a view of it is still open. It is as it was.
        """
        code = lib.mk_py_due(self.end)
        if code:
            self.fail(code)
        self._tell()

    def resume(self, peer_fd: int, pidfd: int) -> None:
        """Go on with the peer's successor. Wait sets that this end is in are to be taken out before.

        Args:
            peer_fd: its object, read-only; still the caller's afterwards.
            pidfd: of its process, this end's from then on; -1: it has ended as well, and another one is due.

        Raises:
            NotOwner: another thread is using it, or a view of it is still open. It is as it was.
            CorruptLane: that is no successor's object, or what stands in it cannot be.
            After an error the pidfd is still the caller's.
        """
        why = ffi.new("uint32_t *")
        code = self._resume(peer_fd, pidfd, why)
        if code == -errno.EPROTO:
            raise refused(code, why[0], peer_fd, self._peer_kind, owned=True)
        if code:
            self.fail(code)
        self._tell()

    def watch_fate(self, machine: Any, peer_id: int) -> None:
        """Raise PeerChanged when the host publishes something of instance `peer_id` after this.

        Args:
            machine: a const struct mk_machine *, or NULL: no more.
            peer_id: of the instance.
        """
        code = lib.mk_py_watch_fate(self.end, machine, peer_id)
        if code:
            self.fail(code)
        self._fate = machine

    @property
    def attached(self) -> bool:
        """Whether the other side's object, the socket and the pidfd are this end's."""
        return lib.mk_py_ready(self.end) != -errno.ENOTCONN  # type: ignore[no-any-return]

    def wait(self, until: int) -> bool:
        """Wait until this end can go on, or until a deadline (waiting.py): whether it can.

        A receiver can when there is a record, an element or an IPI; a sender when there is the room that was missing;
        both when the other end is gone.
        """
        code = lib.mk_py_wait(self.end, until)
        while code == -errno.EINTR:
            code = lib.mk_py_wait(self.end, until)
        if code in (-errno.ETIMEDOUT, -errno.EAGAIN):
            return False
        if code:
            self.fail(code)
        return True

    def fileno(self) -> int:
        """A descriptor that is readable while `wait` would return at once."""
        fd: int = lib.mk_py_event(self.end)
        if fd < 0:
            self.fail(fd)
        return fd

    @property
    def ready(self) -> bool:
        """Whether `wait` would return at once. No system call."""
        code = lib.mk_py_ready(self.end)
        if code < 0:
            self.fail(code)
        return bool(code)

    @property
    def capacity(self) -> int:
        """Bytes that the lane holds."""
        return int(self.view().capacity)

    @property
    def free(self) -> int:
        """Bytes of it that nothing lies in, as this end sees it."""
        view = self.view()
        return int(view.capacity - view.used)

    def settle(self) -> None:
        """Bring `fileno` up to date after the other end of the same link has read the socket that they share."""
        lib.mk_py_settle(self.end)

    def call_peer(self, name: str) -> None:
        """What the other end is called in errors from now on."""
        self._peer = name

    def count_in(self, counters: Any) -> None:
        """Count in a struct mk_counters instead of privately. What it lies in must outlive this end or its close."""
        code = lib.mk_py_counters(self.end, counters)
        if code:
            self.fail(code)
        self._counters = counters

    def count_waits_in(self, counters: Any) -> None:
        """Count spins, parks and spurious wake-ups elsewhere than messages. What it lies in must outlive this end."""
        code = lib.mk_py_wait_counters(self.end, counters)
        if code:
            self.fail(code)

    def read_counters(self) -> Any:
        """What was counted so far (struct mk_counters_copy)."""
        copy = ffi.new("struct mk_counters_copy *")
        code = lib.mk_py_read_counters(self.end, copy)
        if code:
            self.fail(code)
        return copy

    @property
    def end(self) -> Any:
        """The C end, for a wait set; valid until `close`."""
        if self._closed:
            raise Closed(f"this {self.role} was closed here")
        return self._end

    def view(self) -> Any:
        """What the core knows of this end (struct mk_py_view)."""
        view = ffi.new("struct mk_py_view *")
        lib.mk_py_inspect(self.end, view)
        return view

    @property
    def peer_closed(self) -> bool:
        """Whether the other side closed its end itself; a process that died did not."""
        code = lib.mk_py_peer_closed(self.end)
        if code < 0:
            self.fail(code)
        return bool(code)

    def look_for_peer(self) -> None:
        """Find out now whether the other side is gone. A sender with room to send into would only notice in time."""
        lib.mk_py_peer_gone(self.end)

    @property
    def closed(self) -> bool:
        """Whether this end was closed here."""
        return self._closed

    @property
    def here(self) -> bool:
        """Whether it is this process that claimed it, and not the one it was forked from."""
        return not self._closed and bool(self.view().claimed_here)

    def describe(self) -> str:
        """Its state in a few words. Never raises: for `repr`."""
        if self._closed:
            return "closed"
        view = self.view()
        if not view.claimed_here:
            return "of the process that this one was forked from"
        peer = "gone" if view.gone else f"pid {view.peer_pid}" if view.peer_pid else "not claimed"
        return f"{view.used} bytes used, {self._peer} {peer}"

    def check_free(self) -> None:
        """Raise NotOwner if another thread is using this end, or a view of it is still open."""
        if lib.mk_py_settle(self._end) == -errno.EBUSY:
            self.fail(-errno.EBUSY)

    def close(self) -> None:
        """Close this end; the other side still gets what was published. Idempotent.

        Raises:
            NotOwner: another thread is using it, or a view of it is still open.
        """
        if self._closed:
            return
        if lib.mk_py_close(self._end):
            self.fail(-errno.EBUSY)
        self._closed = True
        self._tell()

    def leave(self) -> None:
        """This process is about to end: use the end no more, but do not close it.

        The other side learns of that by the end of the process; all that was published is there for it until then.
        """
        self._closed = True
        self._slot[0] = ffi.NULL  # so that nothing closes it on the way out
        self._tell()

    def on_close(self, call: Callable[[], object]) -> None:
        """Call `call()` when this end has been closed here, or has another peer, unless `not_on_close` came first."""
        self._told.add(call)

    def _tell(self) -> None:
        while self._told:
            self._told.pop()()

    def not_on_close(self, call: Callable[[], object]) -> None:
        """Take `on_close` back."""
        self._told.discard(call)

    def abandon(self) -> None:
        """Close this end when nobody will do it later: one with a view still open closes with that view."""
        try:
            self.close()
        except NotOwner:
            pass  # the view's end drops the last reference, and that closes it

    def fail(self, code: int, *, timeout: float | None = None, length: int = 0) -> NoReturn:
        """Raise what a negative result of the core means.

        Args:
            code: the result.
            timeout: what the caller had given, for the message.
            length: bytes that were to be sent.
        """
        raise self.error(code, timeout=timeout, length=length)

    def error(self, code: int, *, timeout: float | None = None, length: int = 0) -> Exception:
        """As `fail`, for who has something to add to the error."""
        if code in (-errno.EPIPE, -errno.ESHUTDOWN):
            pid = self.view().peer_pid
            who = f"{self._peer} (pid {pid})" if pid else f"{self._peer}, which nobody holds any more,"
            gone = Closed(f"{who} has closed its end or ended", pid=pid)
            if code == -errno.ESHUTDOWN:
                gone.sent = 1  # it lies in the lane
            return gone
        if code == -errno.ESTALE:
            return PeerChanged()
        if code in (-errno.ETIMEDOUT, -errno.EAGAIN):
            within = f" within {timeout:g} s" if timeout else ""
            happened = f"nothing came from {self._peer}" if self.role == "receiver" else f"{self._peer} made no room"
            return Timeout(happened + within, timeout=timeout)
        if code == -errno.EMSGSIZE:
            view = self.view()
            limit = view.capacity if view.element else min(view.capacity - 16, 0xFFFFFFFF)
            return MessageTooLarge(
                f"a message of {length} bytes never fits: this ring holds messages of up to {limit} bytes. "
                "Make it with a larger capacity, or send the message in pieces",
                length=length,
                limit=limit,
            )
        if code == -errno.EBUSY and self._closed:  # by another thread, a moment ago
            return Closed(f"this {self.role} was closed here")
        if code == -errno.EBUSY:
            return NotOwner(f"this {self.role} is in use by another thread, or a view of it is still open")
        if code == -errno.ECHILD:
            return NotOwner(f"this {self.role} belongs to the process that this one was forked from")
        if code == -errno.EBADMSG:
            view = self.view()
            what = _WRONG.get(view.bad, "word")
            return CorruptLane(
                f"{self._peer} (pid {view.peer_pid}) wrote a {what} that cannot be: {view.bad_value:#x}. "
                "The lane is quarantined; close it",
                what=what,
                value=view.bad_value,
                pid=view.peer_pid,
            )
        return failure(code, self.role)


def describe(role: str, carries: object, lane: LaneEnd | None, *, closed: bool) -> str:
    """The `repr` of an end of a ring: <Sender of records, 1M, 24 bytes used, the receiver pid 4711>."""
    if closed or lane is None:
        return f"<{role} of {carries}, {'closed' if closed else 'not claimed'}>"
    size = "" if lane.closed else f" {format_size(lane.capacity)},"
    return f"<{role} of {carries},{size} {lane.describe()}>"
