"""The calls of what carries objects, for `concurrent`, which does not know the core: base classes of its ends."""

from __future__ import annotations

from multikernel._core import ConnectionCalls, QueueCalls

__all__ = ["ConnectionCalls", "QueueCalls"]
