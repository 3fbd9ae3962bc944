"""The binding to the C core. Only `shm`, `ipi`, `kernel` and `tools` import it.

Two halves over one core. `lib` (cffi, API mode) has the functions of csrc/ and of shim*.h, `ffi` makes the C objects
that they take; this half is complete. `SendCalls`, `RecvCalls`, `FanCalls`, `MailboxCalls`, `CastCalls`, `QueueCalls`
and `ConnectionCalls` are the calls of which a program makes millions, in C
where there is the extension `_hot`, and over cffi otherwise (PyPy, or MULTIKERNEL_HOT_CALLS=cffi in the environment).

A negative result is a negated errno; `failure` turns one into an `OSError` for the calls that can only fail as a system
call does.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ._native import ffi, lib

__all__ = [
    "HOT_CALLS", "CastCalls", "ConnectionCalls", "FanCalls", "MailboxCalls", "QueueCalls", "RecvCalls", "SendCalls",
    "failure", "ffi", "lib",
]  # fmt: skip

HOT_CALLS = os.environ.get("MULTIKERNEL_HOT_CALLS") or ("extension" if sys.implementation.name == "cpython" else "cffi")
"""Which half does them: "extension" or "cffi"."""

if TYPE_CHECKING or HOT_CALLS == "cffi":
    from .calls import CastCalls, ConnectionCalls, FanCalls, MailboxCalls, QueueCalls, RecvCalls, SendCalls
elif HOT_CALLS == "extension":
    from . import _hot
    from ._hot import CastCalls, ConnectionCalls, FanCalls, MailboxCalls, QueueCalls, RecvCalls, SendCalls

    _hot.bind(int(ffi.cast("uintptr_t", lib.mk_py_hot_core())))
else:
    raise ImportError(f"MULTIKERNEL_HOT_CALLS={HOT_CALLS!r}: there are 'extension' and 'cffi'")


def failure(code: int, what: str) -> OSError:
    """The `OSError` for a negative result `code` of a call that was to do `what`."""
    return OSError(-code, f"{what}: {os.strerror(-code)}")
