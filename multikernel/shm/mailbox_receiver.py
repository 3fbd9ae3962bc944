"""The receiving end of a `Mailbox`."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from multikernel._core import MailboxCalls, failure, ffi, lib
from multikernel.errors import Closed, CorruptLane, MultikernelError, NotOwner

from .channel import Document, close_all
from .claimed import claim_lane_receiver
from .door import Door, has_ended
from .fan_receiver import FanReceiver, checked
from .lane import _WRONG
from .waiting import AT_ONCE, WaitPolicy, deadline, policy_number

if TYPE_CHECKING:
    from .handles import Bundle

BATCH_RECORDS = 64
"""Looked at by one call into the core: a turn is no longer."""


class MailboxReceiver(MailboxCalls, FanReceiver):
    """The receiving end of a `Mailbox`. The first call that receives claims it for this process.

    Messages of one sender come in the order in which it sent them. Senders take turns: 64 messages or 64 KiB of one,
    then the next that has something, so none starves. Iterating gives messages until all senders are gone and the
    mailbox is closed for new ones. One thread at a time, as with `Sender`.
    """

    role = "receiver of a mailbox"
    _peer = "any sender"

    def __init__(self, bundle: Bundle, capacity: int, wait: WaitPolicy) -> None:
        super().__init__(bundle, BATCH_RECORDS)
        self._capacity = capacity
        self._wait = wait
        self._door: Door | None = None  # None: there will be no more senders
        self._maker = -1
        self._pending: MultikernelError | OSError | None = None  # what the next receive raises

    @property
    def capacity(self) -> int:
        """Bytes that each sender's lane holds, record headers (16 bytes each) and padding (to 8) included."""
        return self._capacity

    def _recv_from(self, timeout: float | None) -> tuple[int, bytes]:
        found: tuple[int, bytes] = self._one(self._take_from(1, deadline(timeout)), timeout)
        return found

    def _try_recv_from(self) -> tuple[int, bytes] | None:
        found = self._take_from(1, AT_ONCE)
        return found[0] if found else None

    def _recv_many_from(self, limit: int, timeout: float | None) -> list[tuple[int, bytes]]:
        found = self._take_many_from(checked(limit), deadline(timeout))
        self._one(found, timeout)
        return found

    def _try_recv_many_from(self, limit: int) -> list[tuple[int, bytes]]:
        return self._take_many_from(checked(limit), AT_ONCE)

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
        self._claimed()
        if self._pending is not None:
            return True
        try:
            if not self._look(1, AT_ONCE):
                return False
            self._give(False)
        except NotOwner:
            raise
        except Closed:
            pass  # the next receive finds that again
        except MultikernelError as error:
            self._pend(error)
        return True

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

    def _take_many(self, limit: int, until: int) -> list[bytes]:
        return [payload for _, payload in self._take_many_from(limit, until)]

    def _take_many_from(self, limit: int, until: int) -> list[tuple[int, bytes]]:
        """Up to `limit` messages, of one sender after the other."""
        found = self._take_from(limit, until)
        try:
            while found and len(found) < limit and (more := self._take_from(limit - len(found), AT_ONCE)):
                found += more
        except MultikernelError as error:
            self._pend(error)  # what was found comes first
        return found

    def _take_from(self, limit: int, until: int) -> list[tuple[int, bytes]]:
        found = self._take(limit, until)
        number: int = lib.mk_py_mailbox_number(self._c)
        return [(number, payload) for payload in found]

    def _look(self, limit: int, until: int) -> int:
        c = self._claimed()
        if self._pending is not None:
            error, self._pending = self._pending, None
            self._use(c)
            raise error
        while True:
            try:
                code: int = lib.mk_py_mailbox_peek(c, self._messages, limit, until)
                if code == 0:
                    self._take_in()
                    continue
            except BaseException:
                self._recover()
                raise
            if code > 0:
                return code
            if code in (-errno.EAGAIN, -errno.ETIMEDOUT):
                return 0
            if code != -errno.EINTR:
                self._fail_to_look(code)

    def _give(self, ended_well: bool) -> None:
        code = lib.mk_py_mailbox_give(self._c, ended_well)
        if code:
            self._fail(code)

    def _recover(self) -> None:
        lib.mk_py_mailbox_recover(self._c)

    def _offset(self, start: Any, payload: Any) -> int:
        return int(payload - start) % self._capacity  # the lane's memory is mapped twice in a row

    def _over(self) -> bool:
        return self._known(lib.mk_py_mailbox_over) > 0

    def _waiting(self) -> int:
        return self._known(lib.mk_py_mailbox_waiting)

    def _known(self, what: Callable[[Any], int]) -> int:
        """What the mailbox in C says when all that has come by the door was taken in."""
        c = self._claimed()
        code = lib.mk_py_mailbox_enter(c)
        if code:
            self._fail(code)
        try:
            self._take_in_later()
            return what(c)
        finally:
            lib.mk_py_mailbox_leave(c)

    def _pend(self, error: MultikernelError | OSError) -> None:
        """Let the next call that receives raise this."""
        self._pending = error
        self._bind(0, False)  # it is for `_look` to do

    def _use(self, c: Any) -> None:
        """Let the extension's calls use the claimed end."""
        self._bind(int(ffi.cast("uintptr_t", c)), True)

    def _fail_to_look(self, code: int) -> NoReturn:
        if code == -errno.EPIPE:
            raise Closed("all senders of this mailbox are gone, and it is closed for new ones")
        if code == -errno.EBADMSG:
            raise self._corrupt()
        self._fail(code)

    def _fail_later(self, _code: int) -> None:
        """As `_fail_to_look`, by the next call."""
        self._pend(self._corrupt())

    def _corrupt(self) -> CorruptLane:
        """What a sender did that has just been cut off."""
        value = ffi.new("uint64_t *")
        what = _WRONG.get(lib.mk_py_mailbox_bad(self._c, value), "word")
        number = lib.mk_py_mailbox_number(self._c)
        return CorruptLane(
            f"sender {number} wrote a {what} that cannot be: {value[0]:#x}. It is cut off",
            what=what,
            value=value[0],
            sender=number,
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
        self._c, self._door, self._maker = c, door, maker  # whatever goes wrong now, the descriptors are not given back
        os.close(inside)
        os.close(tickets)
        door.introduce()
        self._use(c)
        try:
            self._admit_all(c)
        except (MultikernelError, OSError) as error:
            self._pend(error)
        finally:
            lib.mk_py_mailbox_leave(c)
        return c

    def _take_in(self) -> None:
        """Take in what has come by the door, and leave the mailbox in C, which is this thread's."""
        try:
            self._admit_all(self._c)
        finally:
            lib.mk_py_mailbox_leave(self._c)

    def _take_in_later(self) -> None:
        """Take in what has come by the door; what is wrong with it the next receive says. The mailbox stays taken."""
        try:
            self._admit_all(self._c)
        except MultikernelError as error:
            self._pend(error)

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
        if not code:
            self._bind(0, False)
        return code

    def __reduce__(self) -> tuple[Callable[..., MailboxReceiver], tuple[Any, ...]]:
        return MailboxReceiver, (*self._pass_on(), self._capacity, self._wait)


def claim(tickets: int) -> None:
    """Take the receiver for this process. NotOwner if somebody has."""
    try:
        fcntl.fcntl(tickets, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
    except PermissionError:
        raise NotOwner("this receiver was claimed already: it belongs to whoever used it first") from None
