"""`CoreExecutor`: a `concurrent.futures.Executor` with one worker process a core, each pinned to it."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from multikernel.errors import ResourceError
from multikernel.units import format_cpus, parse_cpus

from .mapping import Mapping
from .objects import to_record
from .pool import Pool, Terms
from .tasks import FutureTask, Pickled, TaskFuture, joined, unpicklable

T = TypeVar("T")


class CoreExecutor(Executor):
    """Calls functions in worker processes, each pinned to a cpu of its own. A drop-in for `ProcessPoolExecutor`.

    Tasks go to the workers through rings, without a lock or a thread in between, and their results come back in
    batches. A worker has a window of tasks at hand, of some 5 ms by what tasks have taken so far (one, at the
    beginning and where they take more than 20 ms); what waits behind a task that takes long is taken back
    after some milliseconds and dealt to others. A task can be cancelled until a worker begins with it.

    The workers start with the first task, and are used until the executor is shut down. The calling program is never
    pinned. They end with it, however it ends: a SIGKILL of the program ends them at once.

    What is different from ProcessPoolExecutor: arguments are pickled in `submit` and `map`, so what becomes of them
    later does not matter; a task, a result or an exception that cannot be unpickled fails that task alone and does not
    break the pool; a Ctrl-C interrupts tasks, and not workers that have none.

    Args:
        max_workers: number of workers, which get the cpus that this process may use in turn, where `cpus` is not given.
        mp_context: how to start the processes: `multiprocessing.get_context("fork" | "spawn" | "forkserver")`; None:
            the default of multiprocessing ("spawn" with `max_tasks_per_child`).
        initializer: called in each worker first. If it raises, the pool is broken.
        initargs: its arguments.
        max_tasks_per_child: tasks that a worker does before a new one takes its place; None: any number.
        cpus: one worker for each: an int, a list or "0-3,5". None: the cpus that this process may use.

    Raises:
        ValueError, TypeError: an argument that cannot be.
        ResourceError: a cpu that this process may not use.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        cpus: int | str | Iterable[int] | None = None,
    ) -> None:
        workers = _cpus_of_workers(max_workers, cpus)
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a callable, not {type(initializer).__name__}")
        if mp_context is None:
            method = None if max_tasks_per_child is None else "spawn"
            mp_context = multiprocessing.get_context(method)
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError(f"max_tasks_per_child must be an int, not {type(max_tasks_per_child).__name__}")
            if max_tasks_per_child < 1:
                raise ValueError(f"max_tasks_per_child must be >= 1, not {max_tasks_per_child}")
            if mp_context.get_start_method(allow_none=False) == "fork":
                raise ValueError(
                    "max_tasks_per_child is incompatible with the 'fork' start method: give mp_context, 'spawn' or "
                    "'forkserver'"
                )
        self._cpus = workers
        self._pool = Pool(Terms(mp_context, workers, initializer, initargs, max_tasks_per_child))
        # Dropped without shutdown: what was submitted is done, and the workers end.
        weakref.finalize(self, self._pool.close).atexit = False

    @property
    def cpus(self) -> tuple[int, ...]:
        """The cpu of each worker."""
        return self._cpus

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have `fn(*args, **kwargs)` called by a worker. Does not wait.

        It and its arguments are pickled here; should that fail, the future has the exception.

        Raises:
            BrokenProcessPool: a worker has died.
            RuntimeError: the executor was shut down, or belongs to the process that this one was forked from.
        """
        future = TaskFuture()
        try:
            body = joined(to_record((fn, args, kwargs)))
        except Exception as error:  # noqa: BLE001 - the future raises it
            self._pool.check()
            future.set_exception(unpicklable(error))
            return future
        task = FutureTask(future, body)
        future.recall = partial(self._pool.recall, task)
        self._pool.add((task,))
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As the builtin map, by the workers. Each task is one call, or `chunksize` of them.

        Args:
            fn: what to call; pickled with each task, unless its pickle is only a name.
            iterables: its arguments. Taken and pickled here and now, unless there is a `buffersize`.
            timeout: seconds from now until the last result must be there; None: no limit.
            chunksize: calls that are one task.
            buffersize: tasks whose results were not taken yet, at most: further arguments are taken when results are.

        Returns:
            An iterator of the results, in order. It raises what a call has raised, and ends there; the tasks that no
            worker has are dropped then, as they are when it is closed.

        Raises:
            ValueError, TypeError: an argument that cannot be.
            BrokenProcessPool, RuntimeError: as `submit`.
            TimeoutError: from the iterator.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        self._pool.check()
        calls: Iterator[Any] = zip(*iterables, strict=False)
        if chunksize > 1:
            calls = _chunks(calls, chunksize)
        mapping = Mapping(self._pool, Pickled(fn, each=chunksize > 1), calls)
        mapping.send(buffersize)
        # With a buffer, the iterator goes on submitting: it keeps the executor.
        results = mapping.results(deadline, None if buffersize is None else self)
        return results if chunksize == 1 else itertools.chain.from_iterable(results)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks, and end the workers when they have done those that there are. Idempotent.

        Args:
            wait: until then. Without, it happens all the same.
            cancel_futures: cancel the tasks that were not sent to a worker yet.
        """
        self._pool.close(cancel=cancel_futures)
        if wait:
            self._pool.join()

    def terminate_workers(self) -> None:
        """Shut down, and send each worker SIGTERM, whatever it is at. What it had fails with BrokenProcessPool."""
        self._pool.stop(kill=False)

    def kill_workers(self) -> None:
        """As `terminate_workers`, with SIGKILL."""
        self._pool.stop(kill=True)

    def __repr__(self) -> str:
        return f"<CoreExecutor on cpus {format_cpus(self._cpus)}, {len(self._cpus)} workers, {self._pool.state}>"


def _cpus_of_workers(max_workers: int | None, cpus: int | str | Iterable[int] | None) -> tuple[int, ...]:
    usable = tuple(sorted(os.sched_getaffinity(0)))
    if cpus is None:
        if max_workers is None:
            return usable
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        return tuple(itertools.islice(itertools.cycle(usable), max_workers))
    if max_workers is not None:
        raise ValueError("give cpus, one for each worker, or max_workers, not both")
    asked = parse_cpus(cpus)
    refused = tuple(cpu for cpu in asked if cpu not in usable)
    if refused or not asked:
        raise ResourceError(
            f"cannot have workers on cpus {format_cpus(refused or asked)}: this process may use {format_cpus(usable)}",
            asked=asked,
            free=usable,
            conflicts=tuple((cpu, ()) for cpu in refused),
        )
    return asked


def _chunks(calls: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(itertools.islice(calls, size)):
        yield chunk
