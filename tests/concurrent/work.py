"""What the workers of tests of `CoreExecutor` do: they import this by name, so it is light."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

given: Any = None
"""What `remember` was given in this worker."""


def remember(what: Any) -> None:
    global given
    given = what


def recall() -> Any:
    return given


def same(value: Any) -> Any:
    return value


def keywords(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def add(a: int, b: int) -> int:
    return a + b


def change(array: Any) -> Any:
    array += 1
    return array


def fail(value: Any) -> None:
    raise ValueError(value)


def odd_fails(value: int) -> int:
    if value % 2:
        raise ValueError(value)
    return value


def pid(_value: Any = None) -> int:
    return os.getpid()


def place(_value: Any = None) -> tuple[int, set[int], list[set[int]], int]:
    """Pid, the cpus of this process and of all its threads, and where it runs."""
    threads = [os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")]
    with open("/proc/self/stat") as file:
        here = int(file.read().rpartition(")")[2].split()[36])
    return os.getpid(), os.sched_getaffinity(0), threads, here


def wait_at_gate(_value: Any = None) -> bool:
    """Says that it is here, and waits until it may go on."""
    here, go_on, _ = given
    os.write(here.fileno(), b"!")
    return len(os.read(go_on.fileno(), 1)) == 1


def open_gate() -> None:
    os.write(given[2].fileno(), bytes(1000))


def meet_and_place(_value: Any = None) -> tuple[int, set[int], list[set[int]], int]:
    wait_at_gate()
    return place()


def tell(fd: int) -> None:
    os.write(fd, b"!")


def call(what: Any) -> Any:
    """What calls with different functions look like to `map`."""
    function, *args = what
    return function(*args)


def note(fd: int, index: int) -> int:
    """Leaves its number; takes some milliseconds at times."""
    os.write(fd, index.to_bytes(4, "little"))
    if index % 37 == 0:
        spin(0.006)
    return index


def spin(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def write_and_spin(fd: int) -> None:
    os.write(fd, b"!")
    while True:
        pass


def spin_for_ever() -> None:
    while True:
        pass


def never_let_go() -> int:
    """One call in C that keeps the interpreter lock for longer than anybody waits."""
    return sum(range(10**15))


def send_pid_and(then: Any, connection: Any) -> None:
    connection.send(os.getpid())
    then()


def nested(count: int) -> list[int]:
    import multikernel as mk

    with mk.CoreExecutor(1) as executor:
        return list(executor.map(same, range(count)))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(status: int) -> None:
    os._exit(status)


def unpicklable(_value: Any = None) -> Any:
    return lambda: None


def replace_same() -> None:
    """From here on, `same` is another function in this worker."""
    globals()["same"] = keywords


class AtPickling:
    """Does something when it is pickled."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __reduce__(self) -> Any:
        act(self.what)
        return AtPickling, (self.what,)


class AtUnpickling:
    """Does something when it is unpickled."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __reduce__(self) -> Any:
        return act, (self.what,)


def act(what: str) -> None:
    if what == "crash":
        die()
    if what == "leave":
        os._exit(3)
    if what == "exit":
        raise SystemExit(5)
    raise OverflowError(what)


def make(kind: type, what: str) -> Any:
    return kind(what)


class Picky(Exception):
    """Pickles, and cannot be unpickled."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a)


def raise_picky() -> None:
    raise Picky(1, 2)


def raise_unpicklable() -> None:
    error = ValueError("with a lambda")
    error.extra = lambda: None  # type: ignore[attr-defined]
    raise error


class Counting:
    """Counts how often it was called, where it is."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, _value: Any) -> int:
        self.calls += 1
        return self.calls
