"""A `CoreExecutor` without its surface: tasks come in, workers do them, until it is closed or breaks.

Whoever adds tasks deals them himself, as far as there is room (dealer.py); a thread of its own takes the answers
(collector.py). Nothing here refers to the executor: when a program drops that, what is left is done, and all ends.
"""

from __future__ import annotations

import os
import threading
import weakref
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any

from .collector import Collector
from .dealer import Dealer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .tasks import Task


@dataclass(frozen=True)
class Terms:
    """How workers are made.

    context: makes the processes; cpus: one for each worker; initializer: run by each first, with initargs;
    most: tasks that one does before another takes its place, None: any number
    """

    context: BaseContext
    cpus: tuple[int, ...]
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    most: int | None


class Pool:
    """Tasks, workers and the thread between them. The workers are started with the first task."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.lock = threading.Lock()
        self.dealer = Dealer()
        self.closing = False
        self.cancelling = False
        self.broken: tuple[str, BaseException | None] | None = None  # why, and what that comes from
        self._pid = os.getpid()
        self._collector: Collector | None = None
        _pools.add(self)

    def add(self, tasks: Iterable[Task]) -> None:
        """Take tasks on, and send what there is room for. Does not wait.

        Raises:
            BrokenProcessPool, RuntimeError: it takes no more.
            OSError: the workers could not be started.
        """
        with self.lock:
            self.check()
            if self._collector is None:
                self._collector = Collector(self)
            try:
                self.dealer.add(tasks)
            except BaseException:  # a Ctrl-C: whoever submitted them never hears of them
                for task in tasks:
                    task.abandoned = True
                self._collector.wake()
                raise
            if self.dealer.failed:
                self._collector.wake()

    def recall(self, task: Task) -> bool:
        """Take a task out with which no worker has begun. Whether it was to be had: it is the caller's then.

        Not while whoever has the lock keeps it for a second: that may be a call of this very thread, in whose middle
        the garbage collector has come here.
        """
        if self._pid != os.getpid() or not self.lock.acquire(timeout=1.0):
            return False
        try:
            return self.dealer.recall(task)
        finally:
            self.lock.release()

    def check(self) -> None:
        """Raise if no more tasks are taken."""
        if self._pid != os.getpid():
            raise RuntimeError(
                f"this executor belongs to process {self._pid}, which this one was forked from: make another one here"
            )
        if self.broken is not None:
            raise self.error()
        if self.closing:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def error(self) -> BrokenProcessPool:
        """What becomes of tasks after it broke."""
        reason, cause = self.broken or ("", None)
        error = BrokenProcessPool(reason)
        error.__cause__ = cause
        return error

    @property
    def state(self) -> str:
        """For people."""
        return "broken" if self.broken is not None else "shut down" if self.closing else "open"

    def close(self, *, cancel: bool = False) -> None:
        """Take no more tasks; end when all are done. The garbage collector may call it anywhere."""
        self.cancelling = self.cancelling or cancel
        self.closing = True
        if self._collector is not None and self._pid == os.getpid():
            self._collector.wake()

    def join(self) -> None:
        """After `close`: wait until nothing is left."""
        if self._collector is not None and self._pid == os.getpid():
            self._collector.thread.join()

    def stop(self, *, kill: bool) -> None:
        """End the workers now, whatever they are at."""
        self.close(cancel=True)
        if self._pid == os.getpid():
            with self.lock:
                for hand in self.dealer.hands:
                    if kill:
                        hand.process.kill()
                    else:
                        hand.process.terminate()


_exiting = False
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _finish_all() -> None:
    """The interpreter ends: what was submitted is done first, as concurrent.futures does it."""
    global _exiting
    _exiting = True
    pools = list(_pools)
    for pool in pools:
        pool.close()
    for pool in pools:
        pool.join()


threading._register_atexit(_finish_all)  # type: ignore[attr-defined] # before threads that are no daemons are joined
