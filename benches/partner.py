"""The other process of a bench: pinned, without garbage collection, and gone when the bench is."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from multikernel.kernel.process import die_with

PATIENCE = 30.0
"""Seconds after which a partner that says nothing is stuck."""

_context = multiprocessing.get_context("fork")


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """This process on one cpu, without garbage collection."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        os.sched_setaffinity(0, before)


@contextmanager
def partner(cpu: int, serve: Callable[[int], object]) -> Iterator[Callable[[int], Partner]]:
    """A forked process on `cpu` that calls `serve(n)` whenever it is told to.

    Yields a function that tells it `n`, returns when it is about to call, and gives what to ask for the result.
    """
    here, there = _context.Pipe()
    process = _context.Process(target=_serve, args=(os.getpid(), cpu, here, there, serve), daemon=True)
    process.start()
    there.close()

    def start(n: int) -> Partner:
        here.send(n)
        asked = Partner(here)
        asked.result()  # "ready"
        return asked

    try:
        yield start
    finally:
        here.close()
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()


class Partner:
    """A partner at work."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def result(self) -> Any:
        """What it says next: an error of its own, if it failed."""
        if not self._connection.poll(PATIENCE):
            raise TimeoutError(f"the other process of the bench has said nothing for {PATIENCE} s")
        said = self._connection.recv()
        if isinstance(said, BaseException):
            raise said
        return said


def _serve(parent: int, cpu: int, here: Connection, control: Connection, serve: Callable[[int], object]) -> None:
    here.close()
    die_with(parent)
    os.sched_setaffinity(0, {cpu})
    gc.disable()
    while True:
        try:
            n = control.recv()
        except EOFError:
            return
        control.send("ready")
        try:
            said = serve(n)
        except Exception as error:  # noqa: BLE001 - the parent raises it
            said = error
        control.send(said)
