"""`wait`: until one of many has something. Receivers, links, mailboxes and plain descriptors together.

A group of objects that is waited for once is usually waited for again, so what the core needs for it (an epoll of the
lanes' sockets, and the ends in it) is kept as long as all of them live and are open here. Plain descriptors are not in
that epoll: one that was closed, and opened again under the same number, would no longer be in it.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from multikernel._core import failure, ffi, lib

from .waiting import deadline, is_over

if TYPE_CHECKING:
    from .lane import LaneEnd

T = TypeVar("T")

KEPT = 16
"""Groups that are kept, at most. Each has one descriptor."""

_LONGEST_POLL_MS = 86_400_000.0  # poll(2) takes an int of milliseconds; the loop around it does the rest


class Waitable(Protocol):
    """What can be waited for without a descriptor.

    It may also have `has_news() -> bool`: whether it has something now. Without it, it has when one of its lanes has.
    With `next_due() -> int` beside it, it is asked again then, though nothing came (deadline; negative: never).
    What is waited for by its descriptor may have that, too: it is asked first, and when the descriptor is readable.
    """

    def waits_on(self) -> Sequence[LaneEnd]:
        """The lanes whose news may be its news; always the same ones. Claims them; raises Closed, NotOwner."""


def wait(object_list: Iterable[T], timeout: float | None = None) -> list[T]:
    """Wait until something is there, as `multiprocessing.connection.wait`.

    A receiver or link has something while it has a message, or Closed or CorruptLane to raise; a sender while it has
    the room that its last `try_send` lacked; a descriptor while a read would not wait (end of file and errors count; a
    regular file always has something). An end that nobody has claimed is claimed. Handlers of IPIs that come by one of
    the links run here. When a receiver or link has something already there is no system call; descriptors beside it are
    then looked at once in a millisecond.

    Args:
        object_list: receivers, links, mailboxes, and descriptors: ints, or objects with `fileno()`.
        timeout: seconds to wait. None: no limit; 0: do not wait.

    Returns:
        Those that have something, in the order given; [] when nothing came in time. Nothing is taken.

    Raises:
        Closed: one of them was closed here.
        NotOwner: another thread or process uses one of them, or a view of it is open.
        TypeError, ValueError, OSError: no such thing can be waited for.
    """
    objects = tuple(object_list)
    until = deadline(timeout)
    key = tuple(map(id, objects))
    group = _kept.pop(key, None)  # taken out for as long as it is in use: another thread makes one of its own
    if group is None:
        group = Group(key, objects)
    try:
        found = list(itertools.compress(objects, group.wait(objects, until)))
    except BaseException:
        group.drop()
        raise
    group.keep(objects)
    return found


class Group:
    """Objects that are waited for together, and what the core needs for it.

    Args:
        key: their ids, which stay theirs as long as they live.
        objects: as for `wait`. Ends that nobody has claimed are claimed.
    """

    __slots__ = (
        "_chosen",
        "_dropped",
        "_due",
        "_ends",
        "_fds",
        "_flags",
        "_inquired",
        "_key",
        "_lanes",
        "_looked",
        "_plain",
        "_refs",
        "_set",
        "_where",
    )

    def __init__(self, key: tuple[int, ...], objects: tuple[Any, ...]) -> None:
        self._key = key
        self._where: list[tuple[int, int]] = []  # object, lane
        self._inquired: list[int] = []  # objects with a `has_news` of their own
        self._due: list[int] = []  # of those, the ones that may want to be asked again at a time
        self._plain: list[int] = []  # objects that are descriptors
        places: dict[LaneEnd, int] = {}
        for number, each in enumerate(objects):
            if not hasattr(each, "waits_on"):
                descriptor(each)
                self._plain.append(number)
                if hasattr(each, "has_news"):
                    self._inquired.append(number)
                continue
            for lane in each.waits_on():
                self._where.append((number, places.setdefault(lane, len(places))))
            if hasattr(each, "has_news"):
                self._inquired.append(number)
            if hasattr(each, "next_due"):
                self._due.append(number)
        self._lanes = list(places)
        self._ends = ffi.new("struct mk_end *[]", [lane.end for lane in places])
        self._chosen = bytearray(len(objects))
        self._flags = ffi.new("unsigned char[]", len(places))
        self._fds = ffi.new("struct pollfd[]", 1 + len(self._plain))
        self._set: Any = None
        self._looked = False
        self._refs: list[Any] | None = None
        self._dropped = False

    def wait(self, objects: tuple[Any, ...], until: int) -> bytes | bytearray:
        """Which of them have something, a byte each; none has when the deadline has come."""
        if not self._lanes:
            return _poll(objects, until)
        while True:
            news = [number for number in self._inquired if objects[number].has_news()]
            for place, number in enumerate(self._plain, 1):
                self._fds[place].fd = descriptor(objects[number])
                self._fds[place].events = lib.POLLIN
            due = self._next_due(objects)
            if not self._sleep(bool(news), until if due < 0 or 0 <= until < due else due):
                if due < 0 or is_over(until):
                    return bytes(len(objects))
                continue
            if not self._inquired and not self._plain and len(self._where) == len(self._lanes) == len(objects):
                return bytes(ffi.buffer(self._flags))
            if self._choose(objects, news) or is_over(until):
                return self._chosen

    def _next_due(self, objects: tuple[Any, ...]) -> int:
        """When one of the objects wants to be asked again, though nothing came; negative: none does."""
        if not self._due:
            return -1
        return min((due for number in self._due if (due := objects[number].next_due()) >= 0), default=-1)

    def _sleep(self, found: bool, until: int) -> bool:
        """Wait for the lanes and descriptors, or only look at them. False: the time is up."""
        # A set is made for who has to sleep; and for descriptors that are left alone while lanes have something: the
        # set knows for how long.
        if self._set is None and not (self._plain and self._looked):
            self._looked = True
            code = lib.mk_py_look(self._ends, len(self._lanes), self._flags)
            if code < 0:
                self._fail(code)
            if found or code:
                return True
        if self._set is None:
            self._set = wait_set(self._ends)
            for lane in self._lanes:  # one that has another peer must be put into a new one
                lane.on_close(self.drop)
        code = -errno.EINTR
        while code == -errno.EINTR:
            code = lib.mk_py_set_wait(self._set, self._fds, len(self._plain), self._flags, found, until)
        if code == -errno.ETIMEDOUT:
            return False
        if code < 0:
            self._fail(code)
        return True

    def _fail(self, code: int) -> NoReturn:
        for lane in self._lanes:
            lane.end  # noqa: B018 raises Closed
        self._lanes[0].fail(code)

    def _choose(self, objects: tuple[Any, ...], news: list[int]) -> bool:
        chosen = self._chosen
        chosen[:] = bytes(len(chosen))
        for number, place in self._where:
            chosen[number] |= self._flags[place]
        for number in self._inquired:
            # What woke a link may be no message: an IPI, a reply that is late, a word from the host.
            chosen[number] = number in news or (chosen[number] and objects[number].has_news())
        for place, number in enumerate(self._plain, 1):
            ready = _is_ready(self._fds[place].fd, self._fds[place].revents)
            chosen[number] = number in news or (ready and _has_news(objects[number]))
        return any(chosen)

    def keep(self, objects: tuple[Any, ...]) -> None:
        """Keep it for the next time, until one of the objects is closed or forgotten."""
        if self._dropped or not self._lanes:
            return
        if self._refs is None:
            try:
                self._refs = [each if type(each) is int else weakref.ref(each, self.drop) for each in objects]
            except TypeError:  # whether that is still the same one could not be told
                self.drop()
                return
            for lane in self._lanes:
                lane.on_close(self.drop)
        _kept[self._key] = self
        if len(_kept) > KEPT:
            next(iter(_kept.values())).drop()

    def drop(self, _: object = None) -> None:
        """Do not keep it any longer. It may be in use."""
        self._dropped = True
        self._refs = self._set = None
        _kept.pop(self._key, None)
        for lane in self._lanes:
            lane.not_on_close(self.drop)


_kept: dict[tuple[int, ...], Group] = {}
"""What may be used again, the least recently used first."""

os.register_at_fork(after_in_child=_kept.clear)  # the ends are the parent's, and so is what the epolls watch


def descriptor(what: Any) -> int:
    """The descriptor that `what` is or has; TypeError, ValueError when there is none."""
    if type(what) is not int and not hasattr(what, "fileno"):
        raise TypeError(
            f"wait takes receivers, links, and descriptors (an int, or an object with fileno()), not "
            f"{type(what).__name__}"
        )
    fd: int = what if type(what) is int else what.fileno()
    if fd < 0:
        raise ValueError(f"waiting for {what!r}, which has no open descriptor")
    return fd


def _has_news(what: Any) -> bool:
    """Whether what has a readable descriptor has something: of a mailbox it may be a sender that came or went."""
    return not hasattr(what, "has_news") or what.has_news()


def _is_ready(fd: int, events: int) -> bool:
    if events & lib.POLLNVAL:
        raise OSError(errno.EBADF, f"waiting for descriptor {fd}, which is not open")
    return bool(events)


def _poll(objects: tuple[Any, ...], until: int) -> bytes:
    """Descriptors only."""
    if not objects and until < 0:
        raise ValueError("nothing to wait for, and no time-out")
    fds = [descriptor(each) for each in objects]
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    while True:
        news = [hasattr(each, "has_news") and each.has_news() for each in objects]
        left = None if until < 0 else max(until - time.monotonic_ns(), 0) / 1e6
        found = dict(poll.poll(0 if any(news) else left if left is None else min(left, _LONGEST_POLL_MS)))
        chosen = bytes(
            has or (_is_ready(fd, found.get(fd, 0)) and _has_news(each))
            for has, fd, each in zip(news, fds, objects, strict=True)
        )
        if any(chosen) or is_over(until):
            return chosen


def wait_set(ends: Iterable[Any]) -> Any:
    """A struct mk_wait_set of C ends, freed with its last reference.

    They must be taken out before they are closed, or the set not be used again.
    """
    made = lib.mk_wait_set_new()
    if not made:
        raise failure(-ffi.errno, "making a wait set")
    made = ffi.gc(made, lib.mk_wait_set_free)
    for end in ends:
        code = lib.mk_wait_set_add(made, end)
        if code:
            raise failure(code, "waiting for a lane")
    return made
