"""Histograms: the same counts and percentiles as HdrHistogram's."""

from __future__ import annotations

import copy
import pickle

import numpy as np  # noqa: TID253
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from multikernel.shm.histogram import Histogram

values = st.one_of(
    st.integers(0, 2**40 - 1),
    st.integers(0, 300),
    st.builds(lambda shift, by: max(0, (1 << shift) + by), st.integers(0, 39), st.integers(-3, 3)),
)
percents = st.one_of(st.sampled_from([0, 50, 90, 99, 99.9, 99.99, 100]), st.floats(0, 100))


@given(st.lists(values, min_size=1, max_size=300), st.lists(percents, min_size=1, max_size=10))
def test_percentiles_are_those_of_hdrhistogram(recorded, asked):
    ours, theirs = Histogram(recorded), HdrHistogram(1, 2**40 - 1, 2)
    for value in recorded:
        assert theirs.record_value(value)
    assert ours.count == theirs.get_total_count() == len(recorded)
    assert ours.max == max(recorded)
    for percent in asked:
        # Theirs gives a bucket's highest value also where it is above the maximum, and for 0 a bucket's lowest.
        if percent:
            assert ours.percentile(percent) == min(theirs.get_value_at_percentile(percent), max(recorded))
        else:
            assert ours.percentile(0) == min(theirs.get_highest_equivalent_value(min(recorded)), max(recorded))


@given(st.lists(values, max_size=200))
def test_buckets_are_those_of_hdrhistogram(recorded):
    theirs = HdrHistogram(1, 2**40 - 1, 2)
    for value in recorded:
        theirs.record_value(value)
    expected = [
        (min(item.value_iterated_to, max(recorded)), item.count_added_in_this_iter_step)
        for item in theirs.get_recorded_iterator()
    ]
    assert Histogram(recorded).buckets() == expected


@given(st.lists(st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 2**64 - 1)))
def test_merging_is_recording_in_one(some, others):
    merged = Histogram(some)
    merged.merge(Histogram(others))
    assert merged == Histogram(some + others)
    one_by_one = Histogram()
    for value in some + others:
        one_by_one.record(value)
    assert merged == one_by_one


@given(st.lists(values))
def test_a_copy_is_equal_and_apart(recorded):
    histogram = Histogram(recorded)
    for other in (pickle.loads(pickle.dumps(histogram)), copy.copy(histogram)):  # noqa: TID251
        assert other == histogram
        other.record(3)
        assert other.count == histogram.count + 1


def test_a_value_of_64_bits_is_counted_and_is_the_maximum():
    histogram = Histogram([1, 2**64 - 1])
    assert histogram.max == histogram.percentile(100) == 2**64 - 1
    assert histogram.buckets() == [(1, 1), (2**64 - 1, 1)]


def test_numpy_arrays_are_recorded_too():
    assert Histogram(np.arange(1000)) == Histogram(range(1000))


@pytest.mark.parametrize("value", [-1, 2**64])
def test_what_cannot_be_counted_is_refused_and_nothing_changes(value):
    histogram = Histogram([5])
    with pytest.raises(ValueError, match="values from 0 to 18446744073709551615"):
        histogram.record(value)
    with pytest.raises(ValueError, match="one of these lies outside"):
        histogram.record_many([1, value])
    with pytest.raises(TypeError):
        histogram.record_many([1, "2"])
    assert histogram == Histogram([5])


@pytest.mark.parametrize("percent", [-0.1, 100.1, float("nan")])
def test_a_percentile_lies_between_0_and_100(percent):
    with pytest.raises(ValueError, match="between 0 and 100, not at"):
        Histogram([1]).percentile(percent)


def test_an_empty_one_says_so():
    histogram = Histogram()
    assert (histogram.count, histogram.max, histogram.percentile(50), histogram.buckets()) == (0, 0, 0, [])
    assert repr(histogram) == "<Histogram: nothing recorded>"
    assert repr(Histogram([1, 2, 3])) == "<Histogram of 3: p50=2, p99=3, p99.99=3, max=3>"
