from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multikernel.units import (
    MAX_CPU,
    MAX_SECONDS,
    MAX_SIZE,
    format_cpus,
    format_size,
    parse_cpus,
    parse_seconds,
    parse_size,
)


class Index:
    """An integer of somebody else's, as numpy's are."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (4096, 4096),
        (0, 0),
        (Index(7), 7),
        ("4096", 4096),
        ("512B", 512),
        ("64K", 65536),
        ("64KB", 65536),
        ("64KiB", 65536),
        ("64k", 65536),
        (" 1 M ", 1 << 20),
        ("2GB", 2 << 30),
        ("1.5G", 3 << 29),
        ("0.5K", 512),
        ("1T", 1 << 40),
        ("0.0001K", 0),
        (str(MAX_SIZE), MAX_SIZE),
    ],
)
def test_size_is_read_in_powers_of_1024(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "1X", "-1", "1e3", "1.", ".5K", "1 2", "0x10", "1KK", "٣", "1\u212a", "nan"])
def test_what_is_no_size_is_refused_with_what_is_accepted(text):
    with pytest.raises(ValueError, match=r"64K"):
        parse_size(text)


@pytest.mark.parametrize("size", [-1, "8E", MAX_SIZE + 1, "9" * 30])
def test_size_out_of_range_is_refused(size):
    with pytest.raises(ValueError, match="a size"):
        parse_size(size)


@pytest.mark.parametrize("size", [1.5, None, True, b"1K", [1]])
def test_size_of_a_wrong_type_is_refused(size):
    with pytest.raises(TypeError, match="a size is an int or text"):
        parse_size(size)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1K"),
        (1000 * 1024, "1000K"),
        (65536, "64K"),
        (1536, "1.5K"),
        ((1 << 20) - 1, "1M"),
        (3 << 29, "1.5G"),
        (MAX_SIZE, "8E"),
    ],
)
def test_size_is_shown_with_one_decimal_at_most(size, text):
    assert format_size(size) == text


@given(st.integers(0, 1 << 62))
def test_shown_size_is_within_a_twentieth_of_a_unit(size):
    shown = parse_size(format_size(size))
    assert abs(shown - size) * 20 <= max(shown, size)
    assert format_size(shown) == format_size(size)


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [
        (3, (3,)),
        ("3", (3,)),
        ("0-3,5", (0, 1, 2, 3, 5)),
        (" 5 , 0 - 1,1", (0, 1, 5)),
        ("none", ()),
        ([], ()),
        ([2, 1, 2], (1, 2)),
        ({7}, (7,)),
        (range(2), (0, 1)),
        ([Index(4)], (4,)),
        (f"{MAX_CPU}", (MAX_CPU,)),
    ],
)
def test_cpus_are_read_sorted_and_once(cpus, expected):
    assert parse_cpus(cpus) == expected


@pytest.mark.parametrize("text", ["", ",", "0,", "a", "0-", "-1", "1-2-3", "0-3:1/2", "0x1", "٣", "1.5", "all"])
def test_what_is_no_list_of_cpus_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r'is not a list of cpus: .*"0-3,5"'):
        parse_cpus(text)


def test_range_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match="the range 5-3 ends before it begins"):
        parse_cpus("0,5-3")


@pytest.mark.parametrize("cpus", [-1, [0, -1], MAX_CPU + 1, f"0-{MAX_CPU + 1}", "0-999999999"])
def test_cpu_number_that_cannot_be_is_refused(cpus):
    with pytest.raises(ValueError, match="there can be no cpu"):
        parse_cpus(cpus)


@pytest.mark.parametrize("cpus", [None, 1.5, True, [True], ["1"], [0.0], object()])
def test_cpus_of_a_wrong_type_are_refused(cpus):
    with pytest.raises(TypeError, match="int"):
        parse_cpus(cpus)


@given(st.sets(st.integers(0, MAX_CPU)))
def test_cpus_survive_being_shown(cpus):
    assert parse_cpus(format_cpus(cpus)) == tuple(sorted(cpus))


@pytest.mark.parametrize(
    ("cpus", "text"), [((), "none"), ((0,), "0"), ((0, 1), "0-1"), ((5, 0, 1, 3, 2, 1), "0-3,5"), ((0, 2, 4), "0,2,4")]
)
def test_cpus_are_shown_in_ranges(cpus, text):
    assert format_cpus(cpus) == text


@pytest.mark.parametrize(("seconds", "meant"), [(0, 0.0), (1.5, 1.5), (math.inf, MAX_SECONDS), (10**400, MAX_SECONDS)])
def test_time_to_wait_is_a_number_and_may_be_without_end(seconds, meant):
    assert parse_seconds(seconds) == meant


@pytest.mark.parametrize("seconds", [-1, -0.1, -math.inf, math.nan, -(10**400)])
def test_time_to_wait_is_never_negative(seconds):
    with pytest.raises(ValueError, match="a number of seconds from 0 up, not"):
        parse_seconds(seconds)


@pytest.mark.parametrize("seconds", [None, "1", True, b"", [1.0]])
def test_time_to_wait_of_a_wrong_type_is_refused(seconds):
    with pytest.raises(TypeError, match="a number of seconds, not"):
        parse_seconds(seconds)
