"""`Dealer`: which worker gets which task, and when one is taken back.

A lane to each worker, the one with the least to do first, each with a window of tasks that it may have at hand. The
window is some milliseconds of work by what tasks have taken so far, so that a worker has its next task when it is done
with one. What lies behind a task that turns out long is taken back and dealt to others.

All of it is called with the pool's lock held, and runs nothing of the program's.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from multikernel.shm import claims

from .tasks import ANSWER, LEFT, UNFIT, Task

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .hand import Hand

WINDOW_S = 0.005
"""Work that a worker may have at hand, seconds: as long as another thread may keep the collecting one waiting for the
interpreter lock."""

WINDOW = 1024
"""Most tasks that a worker may have."""

LONG_S = 0.02
"""Of tasks that take longer, a worker has one: what passes until it has the next one counts for nothing then."""

OVERHEAD_S = 4e-6
"""What a task costs a worker beside itself."""

PATIENCE_S = 0.002
"""How long a worker may be at one task before those behind it go to others."""

MEMORY = 8
"""How many tasks count for as much as all before them in the mean of their times."""


class Unfit(Exception):
    """A worker's initializer has failed; the traceback."""


class Dealer:
    """Tasks that wait, and the workers that get them."""

    def __init__(self) -> None:
        self.hands: list[Hand] = []
        self.pending: deque[Task] = deque()
        self.failed: list[tuple[Task, OSError]] = []  # could not be sent, and are to be told so without the lock
        self._mean: float | None = None  # seconds that a task takes
        self._takes_back = claims.possible()

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self.pending and not any(hand.sent for hand in self.hands)

    @property
    def patience(self) -> float | None:
        """Seconds after which `rescue` may have something to do; None: never, as things are."""
        return PATIENCE_S if any(len(hand.sent) > 1 for hand in self.hands) else None

    def add(self, tasks: Iterable[Task]) -> None:
        """Take new tasks on, and send what there is room for.

        If others wait there is none, and whoever makes some deals. So only the collecting thread, which no Ctrl-C
        interrupts, ever begins with a task whose future somebody has.
        """
        first = not self.pending
        self.pending.extend(tasks)
        if first:
            self.deal()

    def deal(self) -> None:
        """Send what there is room for. Does not wait."""
        pending = self.pending
        while pending:
            window = self._window()
            least, room = None, 0
            for hand in self.hands:
                its = hand.room(window)
                if its > 0 and (least is None or len(hand.sent) < len(least.sent)):
                    least, room = hand, its
            if least is None:
                return
            self._send(least, min(room, -(-len(pending) // len(self.hands))))

    def take(self, hand: Hand, records: list[bytes]) -> list[tuple[Task, int, bytes | memoryview]]:
        """What came from a worker: each task that is done, with the kind and the body of its answer.

        Raises:
            Unfit: its initializer has failed.
        """
        done: list[tuple[Task, int, bytes | memoryview]] = []
        seconds = 0.0
        for record in records:
            number, kind, took = ANSWER.unpack_from(record)
            if kind == UNFIT:
                raise Unfit(record[ANSWER.size :].decode(errors="replace"))
            task, lost = hand.answered(number)
            if lost:
                self._wait_again(lost)
            if task is None:
                continue
            if kind == LEFT:
                hand.left_alone()
                self._wait_again([task])
                continue
            seconds += took
            done.append((task, *hand.opened(number, kind, record)))
        hand.heard = time.monotonic()
        if done:
            self._learn(len(done), seconds)
        if hand.left == 0 and not hand.sent:
            hand.tell_to_end()
        self.deal()
        return done

    def rescue(self) -> None:
        """Take back what lies behind a task that takes long, and deal it to others."""
        now = time.monotonic()
        wanted = not self.pending and any(not hand.sent for hand in self.hands)
        patience = PATIENCE_S if wanted else max(2 * PATIENCE_S, 4 * (self._mean or 0.0))
        for hand in self.hands:
            if len(hand.sent) > 1 and now - hand.heard >= patience:
                self._take_back(hand)
        self.deal()

    def recall(self, task: Task) -> bool:
        """Take a task out with which no worker has begun. Whether it was to be had."""
        if task.number:
            hand = next((hand for hand in self.hands if task in hand.sent), None)
            if hand is None or not self._takes_back or hand.has_come_to(task):
                return False
            self._take_back(hand)
        try:
            self.pending.remove(task)
        except ValueError:  # its worker came to it after all
            return False
        finally:
            self.deal()
        return True

    def take_uncancelled(self) -> list[Task]:
        """Take out what waits and was never sent."""
        dropped = [task for task in self.pending if not task.begun]
        kept = [task for task in self.pending if task.begun]
        self.pending.clear()
        self.pending.extend(kept)
        return dropped

    def take_all(self) -> list[Task]:
        """Take out what waits, and what workers have."""
        tasks = [task for hand in self.hands for task in hand.sent] + list(self.pending)
        for hand in self.hands:
            hand.sent.clear()
        self.pending.clear()
        return tasks

    def _window(self) -> int:
        mean = self._mean
        if mean is None or mean > LONG_S or not self._takes_back:
            return 1
        return max(2, min(WINDOW, int(WINDOW_S / (mean + OVERHEAD_S))))

    def _learn(self, count: int, seconds: float) -> None:
        if self._mean is None:
            self._mean = seconds / count
        else:
            self._mean += (seconds - count * self._mean) / (count + MEMORY)

    def _send(self, hand: Hand, count: int) -> None:
        """Send the next `count` tasks, or as many as fit."""
        pending = self.pending
        batch: list[Task] = []
        try:
            while pending and len(batch) < count:
                task = pending[0]
                if task.begin():
                    batch.append(task)
                pending.popleft()
            if batch:
                if not hand.sent:
                    hand.heard = time.monotonic()
                self._wait_again(hand.send(batch))
        except OSError as error:  # no memory or no descriptors for what the first one needs
            self._wait_again(batch[1:])
            self.failed.append((batch[0], error))
        except BaseException:
            self._recover(hand, batch)
            raise

    def _recover(self, hand: Hand, batch: list[Task]) -> None:
        """A Ctrl-C came anywhere in `_send`: what was not begun with for certain waits again."""
        if self._takes_back:
            self._take_back(hand)
        known = set(map(id, self.pending)) | set(map(id, hand.sent))
        self._wait_again([task for task in batch if id(task) not in known])

    def _take_back(self, hand: Hand) -> None:
        self._wait_again(hand.take_back())

    def _wait_again(self, tasks: list[Task]) -> None:
        """Put tasks that no worker has (any more) before those that wait."""
        for task in reversed(tasks):
            task.number = 0
            self.pending.appendleft(task)
