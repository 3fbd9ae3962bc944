"""What a machine's zygote imports ahead, so that every instance has it: with the fork, and not with an import."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from multikernel.errors import MultikernelError
from multikernel.kernel import process

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def names(modules: str | Iterable[str]) -> list[str]:
    """Module names, from a list or from "numpy,json".

    Raises:
        ValueError: one of them cannot be a module's name.
        TypeError: one of them is no text.
    """
    given = modules.split(",") if isinstance(modules, str) else list(modules)
    for each in given:
        if not isinstance(each, str):
            raise TypeError(f"preload: a module's name is text, not {type(each).__name__}")
    found = [each.strip() for each in given]
    for name in found:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"preload: {name!r} is not the name of a module")
    return found


def load(modules: Sequence[str]) -> None:
    """Import them, in this process of one thread.

    Libraries that have a thread for each cpu are told to have one: threads do not pass a fork.

    Raises:
        MultikernelError: one cannot be imported, or has started a thread all the same.
    """
    before = {variable: os.environ.get(variable) for variable in process.THREAD_POOLS}
    os.environ.update(dict.fromkeys(process.THREAD_POOLS, "1"))
    try:
        for name in modules:
            _load_one(name)
    finally:
        for variable, value in before.items():
            if value is None:
                del os.environ[variable]
            else:
                os.environ[variable] = value


def _load_one(name: str) -> None:
    try:
        importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the machine says so and does not start
        raise MultikernelError(
            f"cannot preload {name!r}: {type(error).__name__}: {error}. It is looked for where this program's "
            "interpreter looks.",
            module=name,
        ) from None
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise MultikernelError(
            f"cannot preload {name!r}: it starts a thread, which an instance would not have. Let the image import it.",
            module=name,
        )
