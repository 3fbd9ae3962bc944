"""What records say of themselves."""

from __future__ import annotations

import traceback

import pytest

from multikernel.shm.records import End


def fail(how: str) -> None:
    match how:
        case "plain":
            raise ValueError("wrong")
        case "lines":
            raise ValueError("wrong\n  in two\nlines")
        case "empty":
            raise MemoryError
        case "note":
            error = ValueError("wrong")
            error.add_note("raised elsewhere:\nTraceback (most recent call last):\n  File ...\nKeyError: 'k'")
            raise error
        case "chained":
            try:
                raise KeyError("first")
            except KeyError as error:
                raise ValueError("wrong") from error
        case "in handling":
            try:
                raise KeyError("first\nof two")
            except KeyError:
                raise ValueError("wrong")  # noqa: B904 - that is what it is about
        case "group":
            raise ExceptionGroup("several", [ValueError("wrong"), KeyError("k")])
        case "syntax":
            compile("def main(:", "image:a.py", "exec")


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("plain", "ValueError: wrong"),
        ("lines", "ValueError: wrong"),
        ("empty", "MemoryError"),
        ("note", "ValueError: wrong"),
        ("chained", "ValueError: wrong"),
        ("in handling", "ValueError: wrong"),
        ("group", "ExceptionGroup: several (2 sub-exceptions)"),
        ("syntax", "SyntaxError: invalid syntax"),
    ],
)
def test_the_error_of_an_end_is_the_line_that_says_what_was_raised(how, error):
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - of all kinds
        fail(how)
    whole = "".join(traceback.format_exception(caught.value))
    assert End("exception", 1, traceback=whole).error == error


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", ""),
        ("ended by the host: it does not read\n", "ended by the host: it does not read"),
        ("multikernel.errors.ImageError: no function", "multikernel.errors.ImageError: no function"),
        ("cut off\n    raise ValueError\nValueError: wrong\n", "ValueError: wrong"),
        ("Traceback (most recent call last):\n  File", "File"),
    ],
)
def test_the_error_of_what_is_no_whole_traceback_is_its_last_line(text, error):
    assert End("exception", 1, traceback=text).error == error
