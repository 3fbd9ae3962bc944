"""A worker as its `Pool` sees it: its process, what it was sent, and what it has not answered yet."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from multikernel.errors import Closed
from multikernel.shm.claims import Claims
from multikernel.shm.ring import Ring

from . import parcels
from .tasks import HEAD, LARGEST, PARCEL, RING, TASK, Task
from .worker import Post, main

if TYPE_CHECKING:
    from .lifeline import Lifeline
    from .pool import Terms

BATCH = 1024
"""Most answers taken at once."""

END = b""
"""The record that tells a worker to end."""


class Hand:
    """One worker: started by making it. All but `collect` is called with the pool's lock held.

    Args:
        terms: how it is made.
        cpu: to pin it to.
        lifeline: for it to hold on to.

    Raises:
        OSError: no memory, descriptors or processes. Nothing is left.
    """

    def __init__(self, terms: Terms, cpu: int, lifeline: Lifeline) -> None:
        self.cpu = cpu
        self.left = terms.most  # tasks that it may still be sent
        self.sent: deque[Task] = deque()  # oldest first: it answers in this order
        self.full = False  # its ring was, when something was sent last
        self.stuck = True  # it takes long, at its beginning or at a task: one task is all that it is sent
        self.ending = False  # it was told to
        self.heard = 0.0  # when it answered last, or got something to do
        self._next = 1
        with ExitStack() as opened, ExitStack() as passed_on:
            tasks, answers = opened.enter_context(Ring(RING)), opened.enter_context(Ring(RING))
            self._tasks, self.answers = tasks.sender(), answers.receiver()
            self._tasks.capacity  # noqa: B018 - claims it
            self.fd = self.answers.fileno()
            self._claims = Claims.make()
            opened.callback(self._claims.close)
            claims = self._claims.for_receiver()
            passed_on.callback(claims.close)
            self._parcels, theirs = parcels.pair()
            opened.callback(self._parcels.close)
            passed_on.callback(theirs.close)
            post = Post(
                cpu,
                passed_on.enter_context(tasks.receiver()),
                passed_on.enter_context(answers.sender()),
                theirs,
                claims,
                lifeline,
                signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ()),
                terms.initializer,
                terms.initargs,
            )
            self.process: BaseProcess = terms.context.Process(  # type: ignore[attr-defined]
                target=main, args=(post,), name=f"CoreExecutor worker on cpu {cpu}"
            )
            with _without_interrupts(terms.context.get_start_method()):
                self.process.start()
            self._opened = opened.pop_all()

    def room(self, window: int) -> int:
        """How many more tasks it may have, if each may have `window`."""
        if self.full or self.ending:
            return 0
        room = (1 if self.stuck else window) - len(self.sent)
        return room if self.left is None else min(room, self.left)

    def send(self, batch: list[Task]) -> list[Task]:
        """Send tasks, without waiting. Returns those for which there was no room.

        Raises:
            OSError: no memory or descriptors for the parcel of `batch[0]`.
        """
        records: list[bytes] = []
        for task in batch:
            task.number = self._next
            self._next += 1
            try:
                record = self._record(task)
            except OSError:
                if not records:
                    raise
                record = None  # it is the first one of a later batch
            if record is None:
                break
            self.sent.append(task)
            records.append(record)
        try:
            went = int(self._tasks.try_send(records[0])) if len(records) == 1 else self._tasks.try_send_many(records)
        except Closed:
            went = len(records)  # it has died: they are lost with it, and the pool is told soon
        for _ in range(len(records) - went):
            self.sent.pop()
        self.full = went < len(batch)
        if self.left is not None:
            self.left -= went
        return batch[went:]

    def _record(self, task: Task) -> bytes | None:
        if len(task.body) <= LARGEST:
            return TASK.pack(task.number, task.kind, task.length) + task.body
        try:
            if not parcels.send(self._parcels, task.number, [task.body], wait=False):
                return None
        except BrokenPipeError:
            pass  # it has died
        return TASK.pack(task.number, task.kind | PARCEL, task.length)

    def has_come_to(self, task: Task) -> bool:
        """Whether it has begun with a task that it was sent, or is about to."""
        return self._claims.reached() >= task.number

    def take_back(self) -> list[Task]:
        """Take back what it has not begun with, oldest first.

        Raises:
            OSError: not possible on this system.
        """
        begun = self._claims.take_back(self._next)
        back: list[Task] = []
        while self.sent and self.sent[-1].number > begun:
            back.append(self.sent.pop())
        if self.left is not None:
            self.left += len(back)
        self.stuck = True
        self.full = False
        back.reverse()
        return back

    def collect(self) -> list[bytes]:
        """What it has answered since: records. Without waiting; the collecting thread's alone.

        Raises:
            Closed: it has ended, and all that it had answered was collected.
        """
        records: list[bytes] = self.answers.try_recv_many(BATCH)
        return records

    def answered(self, number: int) -> tuple[Task | None, list[Task]]:
        """The task of answer `number`, None if it is no task of this worker's any more; and older ones that are lost.

        Those never reached it: an exception came while they were sent.
        """
        lost: list[Task] = []
        while self.sent and self.sent[0].number < number:
            lost.append(self.sent.popleft())
        self.full = self.stuck = False
        if self.sent and self.sent[0].number == number:
            return self.sent.popleft(), lost
        return None, lost

    def left_alone(self) -> None:
        """It did not begin with a task that it still had: that does not count as one of those that it may do."""
        if self.left is not None:
            self.left += 1

    def opened(self, number: int, kind: int, record: bytes) -> tuple[int, bytes | memoryview]:
        """Kind and body of an answer, wherever that is."""
        if kind & PARCEL:
            return kind & ~PARCEL, parcels.receive(self._parcels, number)
        return kind, record[HEAD:]

    def tell_to_end(self) -> None:
        """It ends when it has done what it has."""
        self.ending = True
        try:
            self._tasks.try_send(END)  # it has done all that it had: there is room
        except Closed:
            pass

    def close(self) -> None:
        """Give everything back, but for the process. Idempotent."""
        self._opened.close()

    def how_it_ended(self) -> str:
        """For people."""
        code = self.process.exitcode
        if code is None:
            return "closed its end"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended by itself, with exit status {code}"


@contextmanager
def _without_interrupts(method: str) -> Iterator[None]:
    """A process that is started in this block does not see a Ctrl-C until it unblocks SIGINT.

    A fork server that is started with the first one would pass that on to all others, so not there.
    """
    if method == "forkserver":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
