"""`Claims`: a message that was taken back is not begun, and one that was begun is not taken back."""

from __future__ import annotations

import json
import os
from contextlib import closing

import pytest

from multikernel.shm.claims import Claims, possible

from .children import Child

pytestmark = pytest.mark.skipif(not possible(), reason="needs membarrier(2)")


def test_what_was_begun_stays_and_the_rest_is_taken_back():
    sender = Claims.make()
    receiver = sender.for_receiver()
    try:
        assert receiver.begin(1)
        assert receiver.begin(2)
        assert sender.take_back(5) == 2
        assert not receiver.begin(3)
        assert not receiver.begin(4)
        assert receiver.begin(5)
        assert sender.take_back(6) == 5
    finally:
        sender.close()
        receiver.close()


def test_closing_twice_is_no_error():
    sender = Claims.make()
    sender.take_back(1)
    sender.close()
    sender.close()


@pytest.mark.stress
def test_between_processes_nothing_is_begun_that_was_taken_back(tmp_path):
    """The sender takes back again and again while the receiver begins with one after the other."""
    count = 200_000
    sender = Claims.make()
    receiver = sender.for_receiver()

    def run(words):
        begin = receiver.begin
        words.say("ready")
        words.expect("go")
        left = [number for number in range(1, count) if not begin(number)]
        (tmp_path / "left").write_text(json.dumps(left))

    try:
        with Child(run) as child:
            child.expect("ready")
            child.say("go")
            taken: set[int] = set()
            below = begun = 0
            while begun < count - 100:
                below = max(below, begun) + 20
                begun = sender.take_back(below)
                taken.update(range(begun + 1, below))
            assert child.wait() == 0
        left = set(json.loads((tmp_path / "left").read_text()))
        assert {number for number in taken if number < count} <= left
    finally:
        sender.close()
        receiver.close()


def test_taking_back_needs_no_descriptor():
    """Whoever does has perhaps none left: its other tasks are not to fail of that."""
    with closing(Claims.make()) as sender:
        before = os.listdir("/proc/self/fd")
        assert sender.take_back(5) == 0
        assert os.listdir("/proc/self/fd") == before
