from __future__ import annotations

import copy
import errno
import inspect
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multikernel import errors
from multikernel.errors import Closed, MultikernelError, NotFound, ResourceError, Timeout, from_wire, to_wire

CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, MultikernelError)]

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def repickled(error):
    return pickle.loads(pickle.dumps(error))  # noqa: TID251 - our own bytes


def rewired(error):
    return from_wire(json.loads(json.dumps(to_wire(error))))


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("Closed", (BrokenPipeError,)),
        ("CorruptLane", ()),
        ("StateError", (ValueError,)),
        ("ResourceError", (ValueError,)),
        ("ImageError", (ValueError,)),
        ("NotFound", (KeyError, FileNotFoundError)),
        ("BootError", ()),
        ("HandoverError", ()),
        ("Timeout", (TimeoutError,)),
        ("NotOwner", (RuntimeError,)),
        ("MessageTooLarge", (ValueError,)),
        ("Unsupported", (OSError,)),
    ],
)
def test_error_is_also_what_python_calls_it(name, bases):
    kind = getattr(errors, name)
    assert issubclass(kind, (MultikernelError,))
    for base in bases:
        with pytest.raises(base):
            raise kind("it happened")


@pytest.mark.parametrize("kind", CLASSES)
def test_str_is_the_plain_message(kind):
    assert str(kind("no instance 'web'", names=("db",))) == "no instance 'web'"


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("again", [repickled, copy.copy, rewired])
def test_error_keeps_class_message_and_fields_across_a_border(kind, again):
    error = kind("a message", asked=(1, 2), free=(), conflicts={"2": "db"}, limit=5)
    other = again(error)
    assert type(other) is kind
    assert (str(other), other.args, other.fields) == (str(error), error.args, error.fields)
    assert (other.asked, other.limit) == ((1, 2), 5)


@pytest.mark.parametrize("kind", CLASSES)
def test_docstring_says_when_you_get_it_and_when_not(kind):
    assert "You get it" in kind.__doc__
    assert "not get it" in kind.__doc__


def test_fields_set_later_are_fields_and_pickle():
    error = Timeout("three were sent")
    error.sent = 3
    assert error.fields == {"sent": 3}
    assert repickled(error).sent == 3


def test_operating_system_errors_have_their_number():
    assert (Closed("x").errno, NotFound("x").errno, Timeout("x").errno) == (
        errno.EPIPE,
        errno.ENOENT,
        errno.ETIMEDOUT,
    )


@pytest.mark.parametrize("name", ["args", "errno", "fields", "message", "with_traceback", "__class__", "not a name"])
def test_field_cannot_take_a_name_that_errors_use(name):
    """The message itself may well have a field of its own called so; better refused where it is written."""
    with pytest.raises(TypeError, match="field"):
        Closed("x", **{name: 1})
    document = {"error": "Closed", "message": "x", "fields": {name: 1, "pid": 2}}
    assert from_wire(document).fields == {"pid": 2}


def test_wire_form_is_json_and_leaves_behind_what_json_cannot_say():
    error = ResourceError("no", free=(0, 1), where={1, 2}, odd=float("nan"), deep={"a": [1, object()]}, pid=7)
    assert json.loads(json.dumps(to_wire(error))) == {
        "error": "ResourceError",
        "message": "no",
        "fields": {"free": [0, 1], "pid": 7},
    }


def test_a_field_that_contains_itself_does_not_survive():
    loop: list[object] = []
    loop.append(loop)
    assert to_wire(Closed("x", loop=loop))["fields"] == {}


def test_subclass_from_elsewhere_arrives_as_its_nearest_base_here():
    class Gone(Closed):
        pass

    assert type(from_wire(to_wire(Gone("bye", pid=3)))) is Closed


def test_foreign_error_arrives_as_a_multikernel_error_that_names_it():
    error = from_wire(to_wire(OSError(errno.ENOSPC, "No space left")))
    assert type(error) is MultikernelError
    assert "OSError" in str(error)
    assert "No space left" in str(error)


@given(st.dictionaries(st.sampled_from(["pid", "free", "asked", "tail"]), PLAIN))
def test_plain_fields_come_back_as_they_were(fields):
    document = json.loads(json.dumps(to_wire(ResourceError("x", **fields))))
    assert from_wire(document).fields == fields


@given(
    st.dictionaries(
        st.sampled_from(["error", "message", "fields"]) | st.text(),
        PLAIN | st.sampled_from([each.__name__ for each in CLASSES]) | st.dictionaries(st.text(), PLAIN),
    )
)
def test_any_document_gives_an_error_to_raise(document):
    """A wire document is input: whatever it says, the one who reads it raises a MultikernelError."""
    error = from_wire(document)
    assert isinstance(error, MultikernelError)
    assert isinstance(str(error), str)
    assert repickled(error).fields == error.fields
