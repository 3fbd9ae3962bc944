"""A service that the tests call, and what it takes and returns. Loaded on both sides."""

from __future__ import annotations

import asyncio
import enum
import time
from dataclasses import dataclass, field

import multikernel as mk


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: float
    names: list[str] = field(default_factory=list)
    colour: Colour = Colour.RED


class Missing(LookupError):
    """An error of the service's own."""

    def __init__(self, key: str, there: list[str]) -> None:
        super().__init__(key, there)
        self.key, self.there = key, there


class Odd(Exception):
    """One that no method declares."""


class Store:
    """Everything that is to be tried."""

    def __init__(self) -> None:
        self.table: dict[str, bytes] = {}
        self.calls = 0

    @mk.method
    def put(self, key: str, value: bytes, *, twice: bool = False) -> int:
        self.table[key] = value * 2 if twice else value
        return len(self.table)

    @mk.method
    def get(self, key: str) -> bytes | None:
        return self.table.get(key)

    @mk.method
    def move(self, points: dict[str, Point], by: tuple[int, float] = (1, 0.5)) -> list[Point]:
        return [Point(p.x + by[0], p.y + by[1], p.names, Colour.BLUE) for p in points.values()]

    @mk.method(raises=(Missing,))
    def fail(self, how: str) -> None:
        """Raise what is asked for."""
        raised = {
            "builtin": ValueError("not", 7),
            "file": FileNotFoundError(2, "No such file or directory", "/nowhere"),
            "unicode": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
            "ours": mk.ResourceError("no cpu", free=(1, 2)),
            "declared": Missing("k", ["a", "b"]),
            "odd": Odd("strange"),
            "unplain": KeyError(object),
        }
        raise raised[how]

    @mk.method
    def wrong(self) -> int:
        """Break its own promise."""
        return "text"  # type: ignore[return-value]

    @mk.method
    def cannot_be_sent(self) -> bytes:
        return b"x" * (1 << 20)

    @mk.method
    def nothing(self) -> None:
        self.calls += 1

    @mk.method
    def count(self) -> int:
        return self.calls

    @mk.method
    def spin(self, seconds: float) -> float:
        """Be busy for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return seconds

    def hidden(self) -> str:
        """Not marked."""
        return "secret"


class Slow:
    """For an asynchronous image."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.begun = 0
        self.gate = asyncio.Event()

    @mk.method
    async def wait(self) -> int:
        """Until `open`."""
        self.begun += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.begun

    @mk.method
    def open(self) -> None:
        self.gate.set()

    @mk.method
    async def figures(self) -> tuple[int, int]:
        return self.begun, self.cancelled
