from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multikernel.errors import ResourceError
from multikernel.resources.names import RULE, check_name


@pytest.mark.parametrize("name", ["a", "web", "x" * 64, "web-1.2_3", "zwei Worte", "é" * 32, "...", "-x"])
def test_name_within_the_rule_is_taken(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "é" * 33, "a/b", "/", ".", "..", "a\0b", "a\nb", "\x7f", "\x1b[2J", "\u202eabc", "\ud800"]
)
def test_name_against_the_rule_is_refused_with_the_rule(name):
    with pytest.raises(ResourceError) as caught:
        check_name(name)
    assert RULE in str(caught.value)
    assert caught.value.name == name
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [None, 1, b"web"])
def test_name_that_is_not_text_is_a_type_error(name):
    with pytest.raises(TypeError, match="a name is text"):
        check_name(name)


@given(st.text())
def test_name_that_is_taken_can_be_one_file(tmp_path_factory, name):
    """Each becomes a directory's entry and a record's field: no name that is taken may break out of either."""
    try:
        check_name(name)
    except ResourceError:
        return
    directory = tmp_path_factory.getbasetemp()
    (directory / name).touch()
    assert name in {entry.name for entry in directory.iterdir()}
    (directory / name).unlink()
