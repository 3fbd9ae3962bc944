"""`Collector`: the thread of a `CoreExecutor` that takes what the workers answer, and sees how they end.

It waits for all of them at once. What they have room for then is dealt first; the futures are completed after that, and
without the lock, because that runs the program's callbacks.
"""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from multikernel.errors import Closed

from .dealer import Unfit
from .hand import Hand
from .lifeline import Lifeline
from .tasks import RemoteTraceback

if TYPE_CHECKING:
    from .pool import Pool

GRACE_S = 1.0
"""How long a worker has to end after SIGTERM, before SIGKILL."""


class Collector:
    """Starts the workers, and then the thread. Made with the pool's lock held.

    Raises:
        OSError: no memory, descriptors or processes. Nothing is left.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._dealer = pool.dealer
        self._by_fd: dict[int, Hand] = {}  # by the descriptor of its answers, and by that of its end
        self._bell = -1  # an eventfd that wakes the thread
        self._bell_lock = threading.RLock()  # a thread that has it may be sent to `wake` by the garbage collector
        self.thread = threading.Thread(target=self._run, name="CoreExecutor")
        self._opened = ExitStack()
        try:
            self._open()
        except BaseException:
            for hand in list(self._dealer.hands):
                hand.process.kill()
                self._part_with(hand)
            self._close()
            raise

    def _open(self) -> None:
        self._poll = self._opened.enter_context(select.epoll())
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._opened.callback(os.close, self._bell)
        self._poll.register(self._bell, select.EPOLLIN)
        self._lifeline, anchor = Lifeline.throw()
        self._opened.callback(self._lifeline.close)
        self._opened.callback(anchor.close)
        for cpu in self._pool.terms.cpus:
            self._hire(cpu)
        self.thread.start()

    def wake(self) -> None:
        """Have the thread look what it is to do. It may be called anywhere, by the garbage collector too."""
        with self._bell_lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def _close(self) -> None:
        with self._bell_lock:
            self._bell = -1
            self._opened.close()

    def _hire(self, cpu: int) -> None:
        hand = Hand(self._pool.terms, cpu, self._lifeline)
        self._dealer.hands.append(hand)
        for fd in (hand.fd, hand.process.sentinel):
            self._by_fd[fd] = hand
            self._poll.register(fd, select.EPOLLIN)

    def _part_with(self, hand: Hand) -> None:
        """Give back what a worker had; its process has ended, or is about to."""
        self._dealer.hands.remove(hand)
        for fd in [fd for fd, its in self._by_fd.items() if its is hand]:
            self._forget(fd)
        hand.close()
        hand.process.join()
        hand.process.close()

    def _forget(self, fd: int) -> None:
        if self._by_fd.pop(fd, None) is not None:
            self._poll.unregister(fd)

    # --- the thread

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            self._break(f"the executor's own thread has failed: {error!r}", error)
        finally:
            with self._pool.lock:
                self._close()

    def _turn(self) -> bool:
        """Wait for something to do, and do it. False: nothing is left to do."""
        for fd, _ in self._poll.poll(self._dealer.patience):
            if fd == self._bell:
                os.eventfd_read(fd)
                continue
            hand = self._by_fd[fd]
            has_ended = fd != hand.fd
            while self._hear(hand) and has_ended:
                pass  # all that it has published comes first
            if has_ended or hand.fd not in self._by_fd:
                if not self._see_off(hand, has_ended=has_ended):
                    return False
                break  # the numbers of descriptors that are still to come may stand for others by now
        with self._pool.lock:
            self._dealer.rescue()
        return self._goes_on()

    def _hear(self, hand: Hand) -> bool:
        """Take what a worker has answered, and stop listening when its end is closed. Whether there was anything."""
        if hand.fd not in self._by_fd:
            return False
        try:
            records = hand.collect()
        except Closed:
            self._forget(hand.fd)
            return False
        if not records:
            return False
        with self._pool.lock:
            try:
                done = self._dealer.take(hand, records)
            except Unfit as unfit:
                done = []
                self._pool.broken = (
                    f"the initializer failed in the worker on cpu {hand.cpu}",
                    RemoteTraceback(*unfit.args),
                )
        for task, kind, body in done:
            task.answer(kind, body)
        return True

    def _see_off(self, hand: Hand, *, has_ended: bool) -> bool:
        """A worker has closed its end, or has ended. False: it was not told to, and all is given up."""
        as_told = hand.ending and not hand.sent
        if as_told and has_ended:
            with self._pool.lock:
                self._part_with(hand)
                if self._pool.terms.most is not None and not (self._pool.closing and not self._dealer.pending):
                    self._hire(hand.cpu)
                    self._dealer.deal()
        elif not as_told:
            hand.process.join(GRACE_S)
            self._break(
                f"a worker (pid {hand.process.pid}, cpu {hand.cpu}) {hand.how_it_ended()} and was not told to: all "
                "that was submitted and not done is given up; make another executor",
                None,
            )
            return False
        return True

    def _break(self, reason: str, cause: BaseException | None) -> None:
        """Fail all tasks, and end all workers."""
        pool, hands = self._pool, self._dealer.hands
        with pool.lock:
            if pool.broken is None:  # or an initializer's failure has been noted
                pool.broken = (reason, cause)
            tasks = self._dealer.take_all()
            failed, self._dealer.failed = self._dealer.failed, []
            for hand in hands:
                hand.process.terminate()
        for task, error in failed:  # before, and were not told yet
            task.fail(error)
        for task in tasks:
            task.fail(pool.error())
        deadline = time.monotonic() + GRACE_S
        for hand in hands:
            hand.process.join(max(0.0, deadline - time.monotonic()))
        with pool.lock:
            for hand in list(hands):
                hand.process.kill()  # if it has not ended
                self._part_with(hand)

    def _goes_on(self) -> bool:
        pool, dealer = self._pool, self._dealer
        if pool.cancelling:
            with pool.lock:
                dropped = dealer.take_uncancelled()
            for task in dropped:
                task.cancel()
        with pool.lock:
            failed, dealer.failed = dealer.failed, []
            over = pool.closing and dealer.idle
            for hand in dealer.hands if over else ():
                if not hand.ending:
                    hand.tell_to_end()
            goes_on = not over or bool(dealer.hands)
        for task, error in failed:
            task.fail(error)
        return goes_on
