"""The receiving end of a `Mailbox`."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from multikernel._core import failure, ffi, lib
from multikernel.errors import Closed, CorruptLane, MultikernelError, NotOwner

from .channel import Document, close_all
from .claimed import FanEnd, claim_lane_receiver
from .door import Door, has_ended
from .lane import _WRONG
from .waiting import AT_ONCE, WaitPolicy, deadline, policy_number

if TYPE_CHECKING:
    from .handles import Bundle

BATCH_RECORDS = 64
"""Looked at by one call into the core: a turn is no longer."""


class MailboxReceiver(FanEnd):
    """The receiving end of a `Mailbox`. The first call that receives claims it for this process.

    Messages of one sender come in the order in which it sent them. Senders take turns: 64 messages or 64 KiB of one,
    then the next that has something, so none starves. Iterating gives messages until all senders are gone and the
    mailbox is closed for new ones. One thread at a time, as with `Sender`.
    """

    role = "receiver of a mailbox"

    def __init__(self, bundle: Bundle, capacity: int, wait: WaitPolicy) -> None:
        super().__init__(bundle)
        self._capacity = capacity
        self._wait = wait
        self._door: Door | None = None  # None: there will be no more senders
        self._maker = -1
        self._messages = ffi.new("struct mk_message[]", BATCH_RECORDS)
        self._number = ffi.new("uint32_t *")
        self._pending: MultikernelError | None = None  # what the next receive raises

    def recv(self, timeout: float | None = None) -> bytes:
        """The next message, copied; waits while there is none.

        Args:
            timeout: seconds to wait. None: no limit; 0: do not wait.

        Raises:
            TimeoutError: nothing came within `timeout`.
            Closed: all senders are gone, all that they had sent has been received, and no more can come.
            CorruptLane: a sender (`.sender`: its number) wrote what cannot be. It is cut off; the others go on.
        """
        return self.recv_from(timeout)[1]

    def recv_from(self, timeout: float | None = None) -> tuple[int, bytes]:
        """As `recv`, with the number of who sent it first (`MailboxSender.number`)."""
        found = self._take(1, deadline(timeout))
        if not found:
            self._fail(-errno.ETIMEDOUT, timeout=timeout, peer="any sender")
        return found[0]

    def try_recv(self) -> bytes | None:
        """As `recv`, without waiting; None when nothing is there."""
        found = self._take(1, AT_ONCE)
        return found[0][1] if found else None

    def try_recv_from(self) -> tuple[int, bytes] | None:
        """As `recv_from`, without waiting; None when nothing is there."""
        found = self._take(1, AT_ONCE)
        return found[0] if found else None

    def recv_many(self, limit: int, timeout: float | None = None) -> list[bytes]:
        """Up to `limit` messages. Waits for the first, then takes what is there, of every sender in turn.

        Args:
            limit: most messages to take, >= 1.
            timeout: seconds to wait for the first.

        Raises:
            ValueError: `limit` is below 1.
            TimeoutError, Closed, CorruptLane: as `recv`.
        """
        return [payload for _, payload in self.recv_many_from(limit, timeout)]

    def recv_many_from(self, limit: int, timeout: float | None = None) -> list[tuple[int, bytes]]:
        """As `recv_many`, each with the number of who sent it."""
        found = self._take_many(limit, deadline(timeout))
        if not found:
            self._fail(-errno.ETIMEDOUT, timeout=timeout, peer="any sender")
        return found

    def try_recv_many(self, limit: int) -> list[bytes]:
        """As `recv_many`, without waiting: an empty list when nothing is there."""
        return [payload for _, payload in self._take_many(limit, AT_ONCE)]

    def try_recv_many_from(self, limit: int) -> list[tuple[int, bytes]]:
        """As `recv_many_from`, without waiting: an empty list when nothing is there."""
        return self._take_many(limit, AT_ONCE)

    def fileno(self) -> int:
        """A descriptor for event loops, level-triggered: readable while a message is unread or all are gone.

        It may be readable without a message, when a sender came or went: `try_recv` then. It belongs to this end.
        """
        fd: int = lib.mk_py_mailbox_event(self._claimed())
        if fd < 0:
            self._fail(fd)
        return fd

    def has_news(self) -> bool:
        """Whether a receive would not wait, for `wait`: it claims the end, and takes in senders that have come."""
        c = self._claimed()
        while self._pending is None:
            try:
                code = lib.mk_py_mailbox_peek(c, self._messages, 1, self._number, AT_ONCE)
                if code == 0:
                    self._admit_all(c)
            except MultikernelError as error:
                self._pending = error
                continue
            finally:
                lib.mk_py_mailbox_recover(c)
            if code in (-errno.EAGAIN, -errno.ETIMEDOUT):
                return False
            if code > 0 or code == -errno.EPIPE:
                break
            if code == -errno.EBADMSG:
                self._pending = self._corrupt()
            elif code not in (0, -errno.EINTR):
                self._fail(code)
        return True

    async def arecv(self) -> bytes:
        """As `recv`, in asyncio: other tasks run while the mailbox is empty. One task at a time (NotOwner)."""
        from .aio import done

        return await done(self.try_recv, self)

    def __aiter__(self) -> AsyncIterator[bytes]:
        from .aio import each

        return each(self.arecv)

    @property
    def senders(self) -> tuple[int, ...]:
        """The numbers of the senders that are there, by what is known now: who has gone leaves when that is noticed."""
        c = self._claimed()
        room = 64
        while True:
            numbers = ffi.new("uint32_t[]", room)
            count = lib.mk_py_mailbox_numbers(c, numbers, room)
            if count < 0:
                self._fail(count)
            if count <= room:
                return tuple(sorted(numbers[0:count]))
            room = count

    def _take_many(self, limit: int, until: int) -> list[tuple[int, bytes]]:
        if limit < 1:
            raise ValueError(f"recv_many({limit}): the least is 1")
        found = self._take(limit, until)
        try:
            while found and len(found) < limit and (more := self._take(limit - len(found), AT_ONCE)):
                found += more
        except MultikernelError as error:
            self._pending = error  # what was found comes first
        return found

    def _take(self, limit: int, until: int) -> list[tuple[int, bytes]]:
        """Up to `limit` messages of the sender whose turn it is; [] when there was none until the deadline."""
        c = self._claimed()
        messages, number = self._messages, self._number
        if self._pending is not None:
            error, self._pending = self._pending, None
            raise error
        while True:
            try:
                code = lib.mk_py_mailbox_peek(c, messages, min(limit, BATCH_RECORDS), number, until)
                if code > 0:
                    sender = number[0]
                    found = [(sender, ffi.buffer(m.payload, m.length)[:]) for m in messages[0:code]]
                    lib.mk_py_mailbox_release(c)
                    return found
                if code == 0:
                    self._admit_all(c)
                    lib.mk_py_mailbox_leave(c)
                    continue
            except BaseException:
                lib.mk_py_mailbox_recover(c)
                raise
            if code in (-errno.EAGAIN, -errno.ETIMEDOUT):
                return []
            if code != -errno.EINTR:
                self._fail_to_take(code)

    def _fail_to_take(self, code: int) -> None:
        if code == -errno.EPIPE:
            raise Closed("all senders of this mailbox are gone, and it is closed for new ones")
        if code == -errno.EBADMSG:
            raise self._corrupt()
        self._fail(code)

    def _corrupt(self) -> CorruptLane:
        """What a sender did that has just been cut off."""
        value = ffi.new("uint64_t *")
        what = _WRONG.get(lib.mk_py_mailbox_bad(self._c, value), "word")
        return CorruptLane(
            f"sender {self._number[0]} wrote a {what} that cannot be: {value[0]:#x}. It is cut off",
            what=what,
            value=value[0],
            sender=self._number[0],
        )

    # --- claiming, and what comes by the door

    def _make(self, fds: tuple[int, ...]) -> Any:
        inside, tickets, maker = fds
        c = lib.mk_py_mailbox_new(policy_number(self._wait))
        if c == ffi.NULL:
            raise failure(-ffi.errno, "making a receiver of a mailbox")
        c = ffi.gc(c, lib.mk_py_mailbox_drop)
        door = Door.of(os.dup(inside))
        try:
            for fd in (door.fileno(), maker):
                if code := lib.mk_py_mailbox_watch(c, fd):
                    raise failure(code, "watching for more senders")
            claim(tickets)
        except BaseException:
            door.close()
            raise
        os.close(inside)
        os.close(tickets)
        self._door, self._maker = door, maker
        door.introduce()
        try:
            self._admit_all(c)
        except MultikernelError as error:
            self._pending = error
        lib.mk_py_mailbox_leave(c)
        return c

    def _admit_all(self, c: Any) -> None:
        """Take in what has come by the door. The mailbox in C is this thread's."""
        door = self._door
        if door is None:
            return
        try:
            for document, fds in door.arrivals():
                self._admit(c, document, fds)
            if has_ended(self._maker):
                door.refuse()
                for document, fds in door.arrivals():
                    self._admit(c, document, fds)
        except Closed:
            lib.mk_py_mailbox_unwatch(c, door.fileno())
            lib.mk_py_mailbox_unwatch(c, self._maker)
            self._let_go()

    def _admit(self, c: Any, document: Document, fds: list[int]) -> None:
        """Take in one sender. What came is input: what it should be is checked before anything of it is mapped."""
        number = document.get("sender")
        try:
            if type(number) is not int or not 0 <= number < 1 << 32 or len(fds) != 3:
                raise CorruptLane("what came by the mailbox's door is no sender: dropped")
            if not stat.S_ISSOCK(os.fstat(fds[2]).st_mode):
                raise CorruptLane("a sender came by the mailbox's door without its socket: dropped")
            slot = claim_lane_receiver(fds, capacity=self._capacity)
        except (NotOwner, ValueError) as error:
            raise CorruptLane(f"the lane of sender {number} is not one: {error}. Dropped") from error
        finally:
            close_all(fds)
        code = lib.mk_py_mailbox_add(c, slot, number)
        if code == -errno.EEXIST:
            raise CorruptLane(f"a second sender came that is called {number}: dropped")
        if code:
            raise failure(code, f"taking in sender {number}")

    def _let_go(self) -> None:
        door, self._door = self._door, None
        if door is not None:
            door.close()
            os.close(self._maker)

    def _close(self, c: Any) -> int:
        code: int = lib.mk_py_mailbox_close(c)
        return code

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                message = self.recv()
            except Closed:
                return
            yield message

    def __reduce__(self) -> tuple[Callable[..., MailboxReceiver], tuple[Any, ...]]:
        return MailboxReceiver, (*self._pass_on(), self._capacity, self._wait)


def claim(tickets: int) -> None:
    """Take the receiver for this process. NotOwner if somebody has."""
    try:
        fcntl.fcntl(tickets, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
    except PermissionError:
        raise NotOwner("this receiver was claimed already: it belongs to whoever used it first") from None
