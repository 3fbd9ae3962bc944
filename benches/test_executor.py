"""CoreExecutor: tasks a second, one after the other and many at once, and what a task of some length loses."""

from __future__ import annotations

import pytest

from benches import executors

TASKS = 3000


@pytest.mark.parametrize("chunksize", [1, 100])
def test_map_of_short_tasks(record, cpus, chunksize):
    """Tasks of a microsecond."""
    with executors.core(cpus) as ours, executors.process_pool(cpus) as theirs:
        record(
            f"map, 1 us tasks, chunksize {chunksize}",
            executors.PEER,
            executors.mapping(ours, executors.microsecond, TASKS, chunksize),
            executors.mapping(theirs, executors.microsecond, TASKS, chunksize),
        )


def test_map_of_long_tasks(record, cpus):
    """Tasks of a millisecond: what is between them counts for little."""
    with executors.core(cpus) as ours, executors.process_pool(cpus) as theirs:
        record(
            "map, 1 ms tasks, chunksize 1",
            executors.PEER,
            executors.mapping(ours, executors.millisecond, 200, 1),
            executors.mapping(theirs, executors.millisecond, 200, 1),
        )


def test_submitting(record, cpus):
    """A future for each task of a microsecond, all at once."""
    with executors.core(cpus) as ours, executors.process_pool(cpus) as theirs:
        record(
            "submit, 1 us tasks",
            executors.PEER,
            executors.submitting(ours, TASKS),
            executors.submitting(theirs, TASKS),
        )


def test_one_after_the_other(record, cpus):
    """The next task is submitted when the last one's result is there."""
    with executors.core(cpus) as ours, executors.process_pool(cpus) as theirs:
        record(
            "submit and wait for the result",
            executors.PEER,
            executors.asking(ours, 300),
            executors.asking(theirs, 300),
        )
