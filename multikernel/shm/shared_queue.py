"""`SharedQueue`: records from any process of one program to any other. queue.h says how it works.

What `mk.Queue` and `mk.SimpleQueue` are made of: it knows bytes, not objects, and never waits but where it says so.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn, TypeAlias

from multikernel._core import failure, ffi, lib
from multikernel.errors import CorruptLane, ResourceError

from .waiting import AT_ONCE

Piece: TypeAlias = bytes | bytearray | memoryview

LONGEST: int = lib.MK_QUEUE_LONGEST
"""Bytes of the longest record that lies in a lane. A longer one lies outside, in memory that goes when it is taken."""

SMALL = 4096
"""Bytes of the longest record that is taken into memory used again. Longer ones are copied to where they stay."""


class Outside(NamedTuple):
    """Where a long record is: it was written there and is to be put, or was taken and is to be fetched."""

    offset: int
    length: int


class SharedQueue:
    """One process's access to a queue. Passed to child processes as multiprocessing passes things, or by fork.

    Threads may use it at once.

    Args:
        places: most records that it may hold; 0: any number.
        fd: of one that exists; its own from now on.

    Raises:
        OSError: no memory or no descriptor is left; or the queue comes from another pid or time namespace (EXDEV).
    """

    def __init__(self, places: int = 0, *, fd: int | None = None) -> None:
        self._queue: Any = None
        self._fd = -1
        self.places = places
        self.putting = threading.Lock()  # for who has more to keep in order than single puts
        if fd is None:
            fd = lib.mk_queue_create(places)
            if fd < 0:
                raise failure(fd, "making a queue")
        self._fd = fd
        slot = ffi.new("struct mk_queue **")
        code = lib.mk_queue_open(slot, fd)
        if code == -errno.EPROTO:
            raise CorruptLane("the descriptor is no queue of this version of the library")
        if code:
            raise failure(code, "joining a queue")
        self._queue = slot[0]
        self.put_bytes: Callable[[bytes, int], int] = partial(lib.mk_queue_put_one, self._queue)
        """`put` of bytes and their length without a call in between: 0 when done. Anything else is for `put` to do."""
        self.address = int(ffi.cast("uintptr_t", self._queue))
        """Of the queue, for the calls in C."""
        self.rooms: list[Room] = []
        """Those that nobody uses."""
        _all.add(self)

    # --- putting

    def put(self, record: bytes | Sequence[Piece] | Outside) -> bool:
        """Put one record; copied, but for one that lies outside. Whether there was room.

        Raises:
            ResourceError: as many processes as there can be have put into this queue, and live.
            OSError: no memory is left.
        """
        if isinstance(record, bytes):
            code = self._again(lib.mk_queue_put_one, record, len(record))
        elif isinstance(record, Outside):
            large = ffi.new("struct mk_queue_large *", record)
            pieces = ffi.new("const void *[]", [large])
            lengths = ffi.new("uint64_t[]", [ffi.sizeof("struct mk_queue_large")])
            code = self._again(lib.mk_queue_put, lib.MK_QUEUE_LARGE, pieces, lengths, 1)
        else:
            buffers = [ffi.from_buffer(piece) for piece in record]
            pieces = ffi.new("const void *[]", buffers)
            lengths = ffi.new("uint64_t[]", [len(piece) for piece in record])
            code = self._again(lib.mk_queue_put, lib.MK_QUEUE_INSIDE, pieces, lengths, len(buffers))
        if code and code != -errno.EAGAIN:
            self._fail(code)
        return not code

    def _again(self, call: Callable[..., int], *arguments: Any) -> int:
        """Call, again if another thread is putting: it is as good as done. And again after a signal."""
        while (code := call(self._queue, *arguments)) in (-errno.EBUSY, -errno.EINTR):
            os.sched_yield()
        return code

    def admit(self, waiting: int, until: int) -> bool:
        """Take a place for one record, where they are limited; whether there was one. Its put uses it.

        Args:
            waiting: records that this process was given places for and has not put yet.
            until: the deadline of who asks (waiting.py), for the case that another process is stopped as it asks.
        """
        code = self._again(lib.mk_queue_admit, waiting, until)
        if code and code not in (-errno.EAGAIN, -errno.ETIMEDOUT):
            self._fail(code)
        return not code

    def outside(self, length: int) -> Outside:
        """Room for a record of more than LONGEST bytes: `write` it there, then put what this returned."""
        large = ffi.new("struct mk_queue_large *")
        code = self._again(lib.mk_queue_outside, length, large)
        if code:
            self._fail(code)
        return Outside(large.offset, large.length)

    @property
    def tail(self) -> int:
        """For `wait_for_room`, after a put that found none."""
        return int(lib.mk_queue_tail(self._queue))

    def leave(self) -> None:
        """Give this process's lane back. What it has put stays."""
        self._again(lib.mk_queue_leave)

    # --- outside

    def write(self, place: Outside, pieces: Sequence[Piece]) -> None:
        """Copy a record to its place outside; after an exception nothing of it is left. For one thread at a time."""
        at = place.offset
        try:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    n = os.pwrite(self._fd, rest, at)
                    at += n
                    rest = rest[n:]
        except BaseException:
            self.forget(place)
            raise

    def fetch(self, place: Outside) -> bytearray:
        """A copy of a record that was taken; its memory outside is given back."""
        whole = bytearray(place.length)
        large = ffi.new("struct mk_queue_large *", place)
        try:
            code = lib.mk_queue_fetch(self._queue, large, ffi.from_buffer(whole))
            if code:
                raise failure(code, f"reading a record of {place.length} bytes")
        finally:
            self.forget(place)
        return whole

    def view(self, place: Outside) -> memoryview:
        """A record that was taken, where it is. Its memory is given back when nothing made from the view is left."""
        try:
            base = ffi.new("void **")
            code = lib.mk_queue_map(self._queue, ffi.new("struct mk_queue_large *", place), base)
            if code:
                raise failure(code, f"mapping a record of {place.length} bytes")
        except BaseException:
            self.forget(place)
            raise
        exporter = ffi.buffer(ffi.gc(ffi.cast("char *", base[0]), _Unmap(self, place)), place.length)
        return memoryview(exporter).toreadonly()

    def forget(self, place: Outside) -> None:
        """Give the memory of a record outside back: it will not be put, or was taken."""
        lib.mk_queue_forget(self._queue, ffi.new("struct mk_queue_large *", place))

    # --- taking

    def room(self) -> Room:
        """Memory to take into, for one thread at a time. Who is done with it puts it among `rooms`."""
        try:
            return self.rooms.pop()
        except IndexError:
            return Room(self._queue)

    def take(self, room: Room, until: int) -> memoryview | bytearray | Outside | None:
        """The oldest record of some process, or where it is if that is outside; None: there is none.

        A record of at most SMALL bytes is in the room then; of a longer one the memory is the caller's.

        Args:
            room: for this call and until the record is used up nobody else's.
            until: the deadline of who asks (waiting.py), for the case that another process is stopped as it takes.

        Raises:
            CorruptLane: a process wrote what cannot be. What it put is left alone from now on, the rest goes on.
        """
        return self.take_more(room, room.take(until), until)

    def take_more(self, room: Room, length: int, until: int) -> memoryview | bytearray | Outside | None:
        """`take`, after a `room.take` that had this result."""
        longer: bytearray | None = None
        while True:
            if length > 0:
                if longer is None:  # the first time it was a signal's
                    return room.view[:length]
                del longer[length:]  # it may be another record than the one that the memory was made for
                return longer
            if length == 0:
                large = room.taken.large
                if large.length:
                    return Outside(large.offset, large.length)
                longer = bytearray(room.taken.length)
            elif length in (-errno.EAGAIN, -errno.ETIMEDOUT):
                return None
            elif length != -errno.EINTR:
                self._fail(length)
            if longer is None:
                length = room.take(until)
            else:
                length = lib.mk_queue_take(self._queue, ffi.from_buffer(longer), len(longer), room.taken, until)

    # --- waiting

    def wait_for_items(self, until: int) -> bool:
        """Wait until there is something to take, or may be; False: not until the deadline."""
        return self._wait(lib.mk_queue_wait_items, until)

    def wait_for_room(self, tail: int, until: int) -> bool:
        """Wait until there may be room in this process's lane; False: not until the deadline."""
        return self._wait(lib.mk_queue_wait_room, until, tail)

    def wait_for_place(self, until: int) -> bool:
        """Wait until there may be a place; False: not until the deadline."""
        return self._wait(lib.mk_queue_wait_place, until)

    def _wait(self, wait: Callable[..., int], until: int, *arguments: int) -> bool:
        if until == AT_ONCE:
            return False
        again = False
        while True:
            code = wait(self._queue, *arguments, until, again)
            if code == 0:
                return True
            if code == -errno.ETIMEDOUT:
                return False
            if code != -errno.EINTR:
                self._fail(code)
            again = True

    # --- looking

    @property
    def count(self) -> int:
        """How many records have a place, put or still to be put."""
        return int(lib.mk_queue_count(self._queue))

    @property
    def ready(self) -> bool:
        """Whether `take` might find something."""
        return bool(lib.mk_queue_ready(self._queue))

    def _fail(self, code: int) -> NoReturn:
        if code == -errno.EUSERS:
            raise ResourceError(
                f"{lib.MK_QUEUE_LANES} processes that live have put into this queue, and there is no place for "
                "another: close it in those that are done with it"
            )
        if code == -errno.EBADMSG:
            raise CorruptLane("a process wrote into this queue what cannot be; what it has put is lost")
        raise failure(code, "a queue")

    def __reduce__(self) -> tuple[Callable[..., SharedQueue], tuple[Any, ...]]:
        from multiprocessing import reduction  # as in handles.py

        return _rebuild, (self.places, reduction.DupFd(self._fd))

    def __del__(self) -> None:
        if self._queue is not None:
            lib.mk_queue_close(self._queue)
        if self._fd >= 0:
            os.close(self._fd)


class Room:
    """Memory for one small record, and for what is said of a longer one.

    `take(until)` is `SharedQueue.take` without a call in between: the length of a record that `view` shows then;
    another result is for `SharedQueue.take_more`.
    """

    __slots__ = ("take", "taken", "view")

    def __init__(self, queue: Any) -> None:
        memory = bytearray(SMALL)
        self.view = memoryview(memory)
        self.taken = ffi.new("struct mk_queue_taken *")
        self.take: Callable[[int], int] = partial(lib.mk_queue_take, queue, ffi.from_buffer(memory), SMALL, self.taken)


class _Unmap:
    """What gives a mapped record back. It keeps the queue's descriptor open until then."""

    def __init__(self, queue: SharedQueue, place: Outside) -> None:
        self._queue = queue
        self._place = place
        self._generation = lib.mk_fork_generation()

    def __call__(self, base: Any) -> None:
        lib.mk_object_unmap(base, self._place.length)
        if self._generation == lib.mk_fork_generation():  # in a forked copy: the record is the parent's
            self._queue.forget(self._place)


def _rebuild(places: int, fd: Any) -> SharedQueue:
    return SharedQueue(places, fd=fd.detach())


_all: weakref.WeakSet[SharedQueue] = weakref.WeakSet()


def _in_child() -> None:
    """What another thread held when this process was forked is held by nobody here."""
    for queue in _all:
        queue.putting = threading.Lock()
        lib.mk_queue_settle(queue._queue)  # if it cannot, the first call says so


os.register_at_fork(after_in_child=_in_child)
