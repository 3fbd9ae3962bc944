from __future__ import annotations

import os

import pytest

from multikernel.errors import MultikernelError
from multikernel.host.request import Request
from multikernel.units import MAX_SECONDS


def request_with(value: object) -> Request:
    return Request({"verb": "boot", "id": 1, "field": value}, [])


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("text", ""),
        ("integer", -(2**70)),
        ("integer_or_none", None),
        ("integers_or_none", None),
        ("seconds", 0),
        ("seconds_or_none", None),
        ("flag", False),
        ("object", {}),
    ],
)
def test_field_of_its_type_is_given(method, value):
    assert getattr(request_with(value), method)("field") == value


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("text", 1),
        ("text", None),
        ("integer", True),
        ("integer", 1.0),
        ("integer", None),
        ("integers_or_none", [1, "2"]),
        ("integers_or_none", [True]),
        ("integers_or_none", {}),
        ("seconds", -1),
        ("seconds", True),
        ("seconds", "1"),
        ("seconds", None),
        ("flag", 0),
        ("object", []),
    ],
)
def test_field_of_another_type_is_refused_by_name(method, value):
    with pytest.raises(MultikernelError, match="boot: 'field' must be"):
        getattr(request_with(value), method)("field")


def test_missing_field_is_refused_by_name():
    with pytest.raises(MultikernelError, match="the field 'memory' is missing"):
        request_with(1).integer("memory")


def test_time_without_end_becomes_the_longest():
    assert request_with(10**300).seconds("field") == MAX_SECONDS


def test_descriptors_that_nobody_took_are_closed():
    reader, writer = os.pipe()
    request = Request({"verb": "load", "id": 1}, [reader, writer])
    with pytest.raises(MultikernelError, match="comes with 1 descriptors, not with 2"):
        request.take(1)
    request.close()
    for fd in (reader, writer):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_descriptors_that_were_taken_stay_open():
    fd = os.memfd_create("taken")
    request = Request({"verb": "load", "id": 1}, [fd])
    (taken,) = request.take(1)
    request.close()
    os.close(taken)
