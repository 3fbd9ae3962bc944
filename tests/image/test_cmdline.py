from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multikernel.image.cmdline import Params

LINES = st.text(st.sampled_from('ab-_=" \t\nü'), max_size=40)


def linux(args: str) -> list[tuple[str, str | bool]]:
    """`next_arg` of Linux, over and over: an index walks, quotes flip a bit, and the ends of texts are cut."""
    found = []
    args = args.lstrip(" \t\n\v\f\r")
    while args:
        quoted = args[0] == '"'
        args = args[1:] if quoted else args
        inside, equals, i = quoted, 0, 0
        while i < len(args) and (args[i] not in " \t\n\v\f\r" or inside):
            if equals == 0 and args[i] == "=":
                equals = i
            if args[i] == '"':
                inside = not inside
            i += 1
        end = i
        value_from = equals + 1
        if equals and args[value_from : value_from + 1] == '"' and value_from < i:
            value_from += 1
            if args[end - 1] == '"' and end - 1 >= value_from:
                end -= 1
        elif quoted and end > 0 and args[end - 1] == '"':
            end -= 1
        found.append((args[:equals], args[value_from:end]) if equals else (args[:end], True))
        args = args[i + 1 :].lstrip(" \t\n\v\f\r")
    return found


@given(LINES)
def test_parameters_are_those_that_linux_finds(line):
    if line.count('"') % 2:
        with pytest.raises(ValueError, match="never closed"):
            Params(line)
        return
    words = linux(line)
    end = words.index(("--", True)) if ("--", True) in words else len(words)
    params = Params(line)
    wanted: dict[str, list[str | bool]] = {}
    for name, value in words[:end]:
        wanted.setdefault(name.replace("-", "_"), []).append(value)
    assert {name: params.all(name) for name in params} == wanted
    assert dict(params) == {name: values[-1] for name, values in wanted.items()}
    assert list(params.rest) == [name if value is True else f"{name}={value}" for name, value in words[end + 1 :]]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("", {}),
        ("  \t\n ", {}),
        ("port=8080 quiet", {"port": "8080", "quiet": True}),
        ('name="two words" x', {"name": "two words", "x": True}),
        ('"path=/a b" x', {"path": "/a b", "x": True}),
        ('"a flag"', {"a flag": True}),
        ('a=b"c d"e', {"a": 'b"c d"e'}),
        ("a= b", {"a": "", "b": True}),
        ('a="" b', {"a": "", "b": True}),
        ("a=b=c", {"a": "b=c"}),
        ("log-level=3", {"log_level": "3"}),
        ("=x", {"=x": True}),
        ("a=1 -- b=2", {"a": "1"}),
    ],
)
def test_parameters(line, values):
    assert dict(Params(line)) == values


def test_last_of_several_counts_and_all_are_to_be_had():
    params = Params("console=a quiet console=b log-level=1 log_level=2")
    assert params["console"] == "b"
    assert params.all("console") == ["a", "b"]
    assert params.all("log-level") == params.all("log_level") == ["1", "2"]
    assert params.all("none") == []
    assert len(params) == 3


def test_name_is_found_with_either_dash():
    params = Params("log-level=3")
    assert params["log-level"] == params["log_level"] == params.get("log-level") == "3"
    assert "log-level" in params
    assert "loglevel" not in params
    with pytest.raises(KeyError):
        params["loglevel"]


def test_what_follows_two_dashes_is_no_parameter():
    assert Params('a -- b "c d" e="f g"').rest == ("b", "c d", "e=f g")


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ('name="two words', 'at character 6: "two words (close it'),
        ('"', 'at character 1: " (close it'),
        ('"a" "c" d"e', 'at character 10: "e (close it'),
        (f'a" {"x" * 100}', f'at character 2: " {"x" * 38}... (close it'),
    ],
)
def test_open_quote_is_refused_with_its_place(line, place):
    with pytest.raises(ValueError, match="never closed, at character") as caught:
        Params(line)
    assert place in str(caught.value)


@pytest.mark.parametrize("line", [None, b"port=8080", ["port=8080"], 5])
def test_what_is_no_text_is_refused(line):
    with pytest.raises(TypeError, match="a command line is text, not"):
        Params(line)
