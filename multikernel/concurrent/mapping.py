"""What `CoreExecutor.map` is made of: many tasks of one function, whose results are taken in order by one consumer.

There is no future for each: an answer waits as it came, and is opened by whoever takes it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from .tasks import Pickled, Task, opened, unpicklable

if TYPE_CHECKING:
    from .pool import Pool

LOT = 64
"""Tasks that are pickled before they are sent together."""


class Results:
    """The answers of one `map`, by the index of their task."""

    def __init__(self) -> None:
        self.awaited = -1
        # Locked but for the moment in which it is told that what it waits for has come. An Event has a lock that a
        # Ctrl-C can leave locked, and the collecting thread would wait for it.
        self._nothing_came = threading.Lock()
        self.dropped = False  # nobody wants the rest
        self._answers: dict[int, tuple[int, bytes | memoryview] | BaseException] = {}

    def put(self, index: int, answer: tuple[int, bytes | memoryview] | BaseException) -> None:
        """An answer as it came, or why there is none."""
        self._answers[index] = answer
        if index == self.awaited:
            try:
                self._nothing_came.release()
            except RuntimeError:
                pass  # told already

    def take(self, index: int, deadline: float | None) -> Any:
        """The result of task `index`; waits for it. What the task raised is raised.

        Raises:
            TimeoutError: at `deadline` (of time.monotonic).
        """
        answer = self._answers.pop(index, None)
        if answer is None:
            answer = self._wait(index, deadline)
        value, error = (None, answer) if isinstance(answer, BaseException) else opened(*answer)
        if error is None:
            return value
        try:
            raise error
        finally:
            del error, answer  # or the traceback would refer to itself

    def _wait(self, index: int, deadline: float | None) -> tuple[int, bytes | memoryview] | BaseException:
        while True:
            self._nothing_came.acquire(blocking=False)
            self.awaited = index
            answer = self._answers.pop(index, None)  # after saying so: from here on it is told
            if answer is not None:
                return answer
            left = -1 if deadline is None else max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX))
            if not self._nothing_came.acquire(timeout=left):
                raise TimeoutError


class MapTask(Task):
    """A task whose result goes to `Results`."""

    __slots__ = ("index", "results")

    def __init__(self, results: Results, index: int, kind: int, length: int, body: bytes) -> None:
        super().__init__(kind, length, body)
        self.results = results
        self.index = index

    def begin(self) -> bool:
        """As of `Task`."""
        self.begun = True
        return not self.results.dropped

    def answer(self, kind: int, body: bytes | memoryview) -> None:
        """As of `Task`."""
        self.results.put(self.index, (kind, body))

    def fail(self, error: BaseException) -> None:
        """As of `Task`."""
        self.results.put(self.index, error)

    def cancel(self) -> None:
        """As of `Task`."""
        self.results.put(self.index, CancelledError())


class Mapping:
    """One `map`: its tasks, and their results in order.

    Args:
        pool: does them.
        function: what each task applies.
        calls: the arguments of each task.
    """

    def __init__(self, pool: Pool, function: Pickled, calls: Iterator[Any]) -> None:
        self._pool = pool
        self._function = function
        self._calls = calls
        self._sent = 0
        self._results = Results()

    def send(self, most: int | None = None) -> None:
        """Take the arguments of `most` tasks, None: of all, and send them. Raises what `Pool.add` raises."""
        while most is None or most > 0:
            before = self._sent
            self._send_lot(LOT if most is None else min(LOT, most))
            if self._sent == before:
                break
            if most is not None:
                most -= self._sent - before

    def _send_lot(self, most: int) -> None:
        parts, results, lot = self._function.parts, self._results, []
        try:
            for arguments in itertools.islice(self._calls, most):
                index = self._sent
                self._sent = index + 1
                try:
                    lot.append(MapTask(results, index, *parts(arguments)))
                except Exception as error:  # noqa: BLE001 - it is the result of that task
                    results.put(index, unpicklable(error))
        finally:
            if lot:
                self._pool.add(lot)

    def results(self, deadline: float | None, refill: object | None) -> Iterator[Any]:
        """Each result; waits for it until `deadline`. With `refill`, which is kept, a task is sent for each one."""
        results = self._results
        try:
            for index in itertools.count():
                if index == self._sent:
                    break
                yield self._take(index, deadline, refill)
        finally:
            results.dropped = True

    def _take(self, index: int, deadline: float | None, refill: object | None) -> Any:
        value = self._results.take(index, deadline)
        if refill is not None:
            self.send(1)
        return value
