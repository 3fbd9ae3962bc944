"""Who gets which task: nobody idles while something waits, and each task is done once."""

from __future__ import annotations

import os
from collections import Counter

import pytest

import multikernel as mk
from tests.eventually import PATIENCE

from . import work

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def warm_up(executor):
    """Short tasks, so that workers get many at once."""
    assert list(executor.map(work.same, range(3000))) == list(range(3000))


def test_what_waits_behind_a_long_task_is_done_by_others(context, gate):
    with mk.CoreExecutor(2, context, work.remember, (gate.given,)) as executor:
        warm_up(executor)
        held = executor.submit(work.wait_at_gate)
        others = [executor.submit(work.same, n) for n in range(500)]
        assert [other.result(PATIENCE) for other in others] == list(range(500))
        assert not held.done()
        gate.open()
        assert held.result(PATIENCE)


def test_a_task_may_wait_for_one_that_was_submitted_after_it(context, gate):
    with mk.CoreExecutor(2, context, work.remember, (gate.given,)) as executor:
        warm_up(executor)
        calls = [work.wait_at_gate, *[work.pid] * 100, work.open_gate]
        futures = [executor.submit(call) for call in calls]
        assert futures[0].result(PATIENCE) is True


def test_a_long_task_in_a_map_does_not_hold_up_those_after_it(fork, gate):
    with mk.CoreExecutor(2, fork, work.remember, (gate.given,)) as executor:
        warm_up(executor)
        calls = [[work.wait_at_gate], *[[work.same, n] for n in range(2000)], [work.open_gate]]
        assert list(executor.map(work.call, calls, timeout=PATIENCE)) == [True, *range(2000), None]


def test_each_task_is_done_once_whatever_is_taken_back(tmp_path, fork):
    """Mostly short tasks, with long ones among them: what lies behind those is taken back again and again."""
    notes = os.open(tmp_path / "notes", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        with mk.CoreExecutor(2, fork) as executor:
            warm_up(executor)
            count = 4000
            assert list(executor.map(work.note, [notes] * count, range(count))) == list(range(count))
        data = os.pread(notes, 4 * count + 1, 0)
        done = Counter(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))
        assert done == Counter(range(count))
    finally:
        os.close(notes)


def test_large_tasks_that_are_taken_back_are_done_once(fork, gate):
    """Their parcels are taken back with them."""
    with mk.CoreExecutor(2, fork, work.remember, (gate.given,)) as executor:
        warm_up(executor)
        held = executor.submit(work.wait_at_gate)
        values = [bytes([n]) * 50_000 for n in range(100)]
        others = [executor.submit(work.same, value) for value in values]
        assert [other.result(PATIENCE) for other in others] == values
        gate.open()
        assert held.result(PATIENCE)
        assert [executor.submit(work.same, value).result(PATIENCE) for value in values[:5]] == values[:5]
