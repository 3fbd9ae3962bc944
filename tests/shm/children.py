"""Real processes for tests of rings and links: what they say is waited for, never guessed."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from tests.eventually import PATIENCE, until

if TYPE_CHECKING:
    import multikernel as mk

LIMIT = PATIENCE


class Words:
    """One end of a conversation in JSON values."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(LIMIT)

    def say(self, word: Any) -> None:
        self.sock.sendall(json.dumps(word).encode())

    def hear(self) -> Any:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError("the other process has ended without a word")
        return json.loads(data)

    def expect(self, word: Any) -> None:
        heard = self.hear()
        assert heard == word, f"expected {word!r}, heard {heard!r}"


class Child(Words):
    """A forked process that does `work(words)`; ended and reaped with its block, if not before.

    Its exit status is 0 when `work` returns, 1 when it raises (with the traceback on standard error).
    """

    def __init__(self, work: Callable[[Words], object]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            run(work, theirs)
        theirs.close()
        super().__init__(ours)
        self.status: int | None = None
        self._pidfd = os.pidfd_open(self.pid)

    def signal(self, number: int) -> None:
        signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL

    def stop(self) -> None:
        """Stop it, and wait until it is."""
        self.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def wait(self) -> int:
        """Its exit status; negative: the signal that ended it."""
        if self.status is None:
            ready, _, _ = select.select([self._pidfd], [], [], LIMIT)
            assert ready, f"process {self.pid} has not ended"
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def sleeps(self) -> None:
        """Wait until it sleeps in the system."""
        until(lambda: state(self.pid) == "S")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.status is None:
            self.signal(signal.SIGKILL)
            self.wait()
        os.close(self._pidfd)
        self.sock.close()


def run(work: Callable[[Words], object], sock: socket.socket) -> NoReturn:
    status = 1
    try:
        work(Words(sock))
        status = 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def state(pid: int, thread: int | None = None) -> str:
    """As in ps: S sleeps, R runs, T is stopped, Z has ended."""
    with open(f"/proc/{pid}/task/{thread or pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


class Thread(threading.Thread):
    """One that hands its result or its error to `join`."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.result: object = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def sleeps(self) -> None:
        until(lambda: self.native_id is not None and state(os.getpid(), self.native_id) == "S")

    def polls(self) -> bool:
        """Whether it sleeps in poll(2): the long sleep, after the short one."""
        if self.native_id is None or state(os.getpid(), self.native_id) != "S":
            return False
        with open(f"/proc/self/task/{self.native_id}/wchan") as file:
            place = file.read()
        return "poll" in place or place == "0"  # 0: this system does not say

    def value(self) -> object:
        self.join(LIMIT)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


def send_on(tx: mk.Sender) -> None:
    """Until there is no room: a receiver that nobody ever claimed is noticed then."""
    for _ in range(1000):
        tx.send(b"x" * 100, timeout=LIMIT)


def open_descriptors() -> set[str]:
    """Those of this process, with what is behind them."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:  # the one that listed them
            continue
    return found
