"""The binding to the C core (cffi, API mode). Only `shm`, `ipi`, `kernel` and `tools` import it.

`lib` has the functions of csrc/ and of shim.h, `ffi` makes the C objects that they take. A negative result is a
negated errno; `failure` turns one into an `OSError` for the calls that can only fail as a system call does.
"""

from __future__ import annotations

import os

from ._native import ffi, lib

__all__ = ["failure", "ffi", "lib"]


def failure(code: int, what: str) -> OSError:
    """The `OSError` for a negative result `code` of a call that was to do `what`."""
    return OSError(-code, f"{what}: {os.strerror(-code)}")
