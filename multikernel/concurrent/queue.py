"""`Queue` and `SimpleQueue`: multiprocessing's, over a lane for each process that puts.

What differs is said in the classes, and in docs/coming-from-multiprocessing.md with what it means for a program.
"""

from __future__ import annotations

import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing import context, util
from queue import Empty, Full
from typing import Any

from multikernel.shm.object_calls import QueueCalls
from multikernel.shm.shared_queue import LONGEST, Outside, SharedQueue
from multikernel.shm.waiting import AT_ONCE, deadline

from .objects import HOT, Piece, from_record, length_of, to_record

Item = bytes | Sequence[Piece] | Outside
"""An object on its way into a queue."""

PATIENCE = 0.001
"""Seconds that a put waits for room before a thread does, which would share the interpreter with it."""

FOREVER = -1
"""The deadline of a call without one."""


def _lay_down(core: SharedQueue, record: bytes | list[Piece]) -> Item:
    """What is too long for a lane is laid down outside of it."""
    pieces = [record] if isinstance(record, bytes) else record
    length = length_of(pieces)
    if length <= LONGEST:
        return record
    place = core.outside(length)
    core.write(place, pieces)
    return place


def _get(core: SharedQueue, until: int, *, copy: bool) -> Any:
    """The next object. Empty: none came until the deadline."""
    room = core.room()
    length = room.take(until)
    if length > 0:  # the ordinary case
        obj = from_record(room.view[:length])
    else:
        record = core.take_more(room, length, until)
        while record is None:
            if not core.wait_for_items(until):
                core.rooms.append(room)
                raise Empty
            record = core.take(room, until)
        obj = _object(core, record, copy=copy)
    core.rooms.append(room)  # only now: what it holds was unpickled
    return obj


def _object(core: SharedQueue, record: memoryview | bytearray | Outside, *, copy: bool) -> Any:
    if isinstance(record, memoryview):
        return from_record(record)
    if isinstance(record, Outside):
        if not copy:
            return from_record(core.view(record), copy=False)
        record = core.fetch(record)
    return from_record(record, copy=False)  # in memory that can be written and is nobody else's: arrays stay in it


class Queue(QueueCalls):
    """A queue of objects between any number of threads and processes: `multiprocessing.Queue`.

    It reaches a process by being inherited, as there: by fork, or as an argument of a `multiprocessing.Process`. Each
    process that puts has a lane of its own, and objects of one process come out in the order in which they were put.
    A process that is killed blocks nobody: with one that was getting an object, at most that object is lost; one that
    was putting has put it whole or not at all. That is known within some tens of milliseconds.

    An object is pickled in `put`, which raises if that fails: there it is pickled later, and lost. While there is
    room in the lane (256 KiB, or 2048 objects; long ones lie outside of it) it is on its way when `put` returns,
    and stays in the queue whatever becomes of this process. Only when the lane stays full for a millisecond, a
    thread is started that puts what follows, in order, as room comes; from then on a process that ends waits for
    it, unless `cancel_join_thread`.

    Args:
        maxsize: most objects in it, put or still with that thread; 0 or less: any number.

    Raises:
        OSError: no memory or no descriptor is left.
    """

    __class_getitem__ = classmethod(types.GenericAlias)  # type: ignore[var-annotated] # as multiprocessing's

    def __init__(self, maxsize: int = 0) -> None:
        self._set(SharedQueue(max(maxsize, 0)))

    def _set(self, core: SharedQueue) -> None:
        self._core = core
        self._limited = core.places > 0
        self._closed = False
        self._spill = _Spill(core, weakref.WeakMethod(self._open_way))
        self._open_way()

    def _put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        self._put_record(to_record(obj), block, timeout)

    def _put_record(self, record: bytes | list[Piece], block: bool = True, timeout: float | None = None) -> None:
        if self._closed:  # while it was pickled
            raise ValueError(f"Queue {self!r} is closed")
        core, spill = self._core, self._spill
        if not self._limited and isinstance(record, bytes) and len(record) <= LONGEST:  # the ordinary case
            # Without the lock: what this thread has spilled is seen here, and order between threads is not promised.
            if spill.items or not self._put_soon(core, record):
                with core.putting:
                    spill.put(record)
            return
        item = record if isinstance(record, bytes) and len(record) <= LONGEST else _lay_down(core, record)
        if not self._limited:
            with core.putting:
                spill.put(item)
            return
        until = deadline(timeout) if block else AT_ONCE
        try:
            while True:
                with core.putting:
                    if core.admit(len(spill.items), until):
                        spill.put(item)
                        return
                if not core.wait_for_place(until):
                    raise Full
        except BaseException:
            if isinstance(item, Outside):
                core.forget(item)
            raise

    @staticmethod
    def _put_soon(core: SharedQueue, record: bytes) -> bool:
        """Put it, if there is room within PATIENCE."""
        if not core.put_bytes(record, len(record)):
            return True
        return core.wait_for_room(core.tail, deadline(PATIENCE)) and not core.put_bytes(record, len(record))

    def _get(self, block: bool = True, timeout: float | None = None, *, copy: bool = True) -> Any:
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        return _get(self._core, (FOREVER if timeout is None else deadline(timeout)) if block else AT_ONCE, copy=copy)

    def _get_outside(self, offset: int, length: int) -> Any:
        """The object of a record that was taken and lies outside."""
        return _object(self._core, Outside(offset, length), copy=True)

    def _open_way(self) -> None:
        """Let the calls in C put, unless there is more to it: places, or what the thread has to put before."""
        address = 0 if self._closed else self._core.address
        self._bind(0 if self._limited or self._spill.items else address, address, HOT)

    def put_nowait(self, obj: Any) -> None:
        """`put(obj, False)`."""
        self.put(obj, False)

    def get_nowait(self) -> Any:
        """`get(False)`."""
        return self.get(False)

    def qsize(self) -> int:
        """About how many objects are in it: others put and take meanwhile."""
        if self._limited:  # those with the thread have places, and are counted
            return self._core.count
        return self._core.count + len(self._spill.items)

    def empty(self) -> bool:
        """Whether `get_nowait` would have raised Empty just now."""
        return not self._core.ready

    def full(self) -> bool:
        """Whether `put_nowait` would have raised Full just now."""
        return self._limited and self._core.count >= self._core.places

    def close(self) -> None:
        """This process will neither put nor get any more. What it has put stays. Idempotent."""
        self._closed = True
        self._open_way()
        with self._core.putting:
            self._spill.close()

    def join_thread(self) -> None:
        """After `close`: wait until all that this process has put is in its lane."""
        if not self._closed:
            raise AssertionError(f"Queue {self!r} not closed")
        self._spill.join()

    def cancel_join_thread(self) -> None:
        """This process may end before all that it has put is in its lane: the rest is lost then."""
        self._spill.join_at_exit = False

    def __getstate__(self) -> SharedQueue:
        context.assert_spawning(self)
        return self._core

    def __setstate__(self, core: SharedQueue) -> None:
        self._set(core)

    def __repr__(self) -> str:
        limit = f" of {self._core.places}" if self._limited else ""
        return f"<Queue, {self.qsize()}{limit}{', closed' if self._closed else ''}>"


class _Spill:
    """What a process has put and its lane had no room for, and the thread that waits for the room.

    All but `join` is called with the queue's `putting` held. A forked child begins with none: what is here is the
    parent's to put.
    """

    def __init__(self, core: SharedQueue, changed: Callable[[], Callable[[], None] | None]) -> None:
        self._core = core
        self._changed = changed  # a weak reference to what is called when there are items, or none any more
        self.join_at_exit = True
        self._closed = False
        self._clear()
        util.register_after_fork(self, _Spill._forget)

    def _clear(self) -> None:
        self.items: deque[bytes | Outside] = deque()
        self._thread: threading.Thread | None = None

    def _forget(self) -> None:
        self._clear()
        self._tell()

    def _tell(self) -> None:
        changed = self._changed()
        if changed is not None:
            changed()

    def put(self, item: Item) -> None:
        """Put an item behind all others of this process."""
        if not self.items and self._core.put(item):
            return
        self.items.append(item if isinstance(item, (bytes, Outside)) else b"".join(item))
        if len(self.items) == 1:
            self._tell()
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._feed, name="QueueFeederThread", daemon=True)
        self._thread.start()
        # As multiprocessing's: after the finalizers that end other things, and after its children were joined.
        self._at_exit = util.Finalize(None, self._join_at_exit, exitpriority=-5)

    def _feed(self) -> None:
        core = self._core
        while True:
            with core.putting:
                if not self.items:
                    self._end()
                    return
                if core.put(self.items[0]):
                    self.items.popleft()
                    if not self.items:
                        self._tell()
                    continue
                tail = core.tail
            core.wait_for_room(tail, FOREVER)

    def _end(self) -> None:
        self._thread = None
        self._at_exit.cancel()
        if self._closed:
            self._core.leave()

    def close(self) -> None:
        """No more will be put: once all is in the lane, that is given back."""
        self._closed = True
        if self._thread is None:
            self._core.leave()

    def join(self) -> None:
        """Wait until all is in the lane."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _join_at_exit(self) -> None:
        if self.join_at_exit:
            self.join()


class SimpleQueue:
    """A queue of objects between any number of threads and processes: `multiprocessing.SimpleQueue`.

    As `Queue`, but that `put` waits while the process's lane is full, and there is never a thread.

    Raises:
        OSError: no memory or no descriptor is left.
    """

    __class_getitem__ = classmethod(types.GenericAlias)  # type: ignore[var-annotated] # as multiprocessing's

    def __init__(self) -> None:
        self._core = SharedQueue()
        self._closed = False

    def put(self, obj: Any) -> None:
        """Put an object, copied once; waits while this process's lane is full.

        Raises:
            OSError: this process has closed the queue, or no memory is left for the object.
            pickle.PicklingError, TypeError, and what the object's methods raise: it cannot be pickled.
        """
        self._check_open()
        core = self._core
        record = to_record(obj)
        item: Item = record
        if not isinstance(record, bytes) or len(record) > LONGEST:
            item = _lay_down(core, record)
        elif not core.put_bytes(record, len(record)):  # the ordinary case
            return
        try:
            while True:
                if core.put(item):
                    return
                core.wait_for_room(core.tail, FOREVER)
        except BaseException:
            if isinstance(item, Outside):
                core.forget(item)
            raise

    def get(self, *, copy: bool = True) -> Any:
        """Take an object; waits for one. See `Queue.get`.

        Raises:
            OSError: this process has closed the queue.
            CorruptLane: a process has written into the queue what cannot be.
        """
        self._check_open()
        return _get(self._core, FOREVER, copy=copy)

    def empty(self) -> bool:
        """Whether `get` would have waited just now. OSError if this process has closed the queue."""
        self._check_open()
        return not self._core.ready

    def close(self) -> None:
        """This process will neither put nor get any more. What it has put stays. Idempotent."""
        self._closed = True
        self._core.leave()

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(f"this process has closed {self!r}")

    def __getstate__(self) -> SharedQueue:
        context.assert_spawning(self)
        return self._core

    def __setstate__(self, core: SharedQueue) -> None:
        self._core = core
        self._closed = False

    def __repr__(self) -> str:
        return f"<SimpleQueue, {self._core.count}{', closed' if self._closed else ''}>"
