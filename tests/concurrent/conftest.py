"""What tests of `CoreExecutor` get."""

from __future__ import annotations

import multiprocessing
import os
import select

import pytest

from tests.eventually import PATIENCE


class Gate:
    """Where tasks wait until they are let through. Pipes, because they can be given to any worker."""

    def __init__(self) -> None:
        self._came, self._here = multiprocessing.Pipe(False)
        self._go_on, self._open = multiprocessing.Pipe(False)

    @property
    def given(self):
        """For `work.remember`, in each worker."""
        return self._here, self._go_on, self._open

    def wait_for(self, count):
        """Until so many tasks have come to it."""
        for _ in range(count):
            assert select.select([self._came], [], [], PATIENCE)[0], "no task has come to the gate"
            os.read(self._came.fileno(), 1)

    def open(self):
        """Let through all that come; as many as there are in a test."""
        os.write(self._open.fileno(), bytes(1000))

    def close(self):
        for each in (self._came, self._here, self._go_on, self._open):
            each.close()


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open()
    gate.close()


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request):
    """Each way to start processes."""
    return multiprocessing.get_context(request.param)


@pytest.fixture
def fork():
    """The quickest way to start processes, for what does not depend on it."""
    return multiprocessing.get_context("fork")
