from __future__ import annotations

import functools
import os
import subprocess
import sys

import pytest

from multikernel.errors import ImageError
from multikernel.image import read


def top_level(kernel):
    return "from the test's module"


class Service:
    @staticmethod
    def run(kernel):
        return "from a class"

    @classmethod
    def made(cls, kernel):
        return None

    def method(self, kernel):
        return None


def nested():
    def inner(kernel):
        return None

    return inner


def decorated_away(kernel):
    return None


hidden, decorated_away = decorated_away, 5


def test_function_of_a_module_is_that_module(write, run, monkeypatch):
    root = write({"pkg_of_functions/__init__.py": "", "pkg_of_functions/m.py": "def start(k):\n    return __name__\n"})
    monkeypatch.syspath_prepend(root)
    from pkg_of_functions.m import start

    image = read(start)
    assert (image.kind, image.name, image.entry) == ("module", "pkg_of_functions.m:start", "start")
    assert run(image) == "pkg_of_functions.m"


@pytest.mark.parametrize(("function", "result"), [(top_level, "from the test's module"), (Service.run, "from a class")])
def test_function_of_a_module_imported_by_its_file_is_found(run, function, result):
    """Test runners import so; where the import path leads there, it is a module, elsewhere its file."""
    image = read(function)
    assert image.entry == function.__qualname__
    assert run(image) == result


def test_function_that_another_module_of_the_name_would_shadow_is_taken_from_its_own_file(write, run, monkeypatch):
    wrong = write({"shadowed.py": "def start(k):\n    return 'wrong'\n"}, under="wrong")
    right = write({"shadowed.py": "def start(k):\n    return 'right'\n"}, under="right")
    monkeypatch.syspath_prepend(right)
    from shadowed import start

    monkeypatch.syspath_prepend(wrong)
    image = read(start)
    assert (image.kind, image.name) == ("script", "shadowed.py:start")
    assert run(image) == "right"


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda kernel: None, "a lambda has no name"),
        (nested(), "inside of another function"),
        (print, "not a function written in Python"),
        (Service, "it is a type"),
        (Service.made, "it is a method"),
        (Service().method, "it is a method"),
        (functools.partial(top_level, None), "it is a partial"),
        (hidden, "decorated_away is something else"),
    ],
)
def test_function_that_has_no_name_to_import_it_by_is_refused_with_the_reason(function, text):
    with pytest.raises(ImageError, match=f"{text}.*top level of a module"):
        read(function)


LOAD_OWN = """
import json, os, sys
from multikernel.errors import ImageError
from multikernel.image import read

def main(kernel):
    return __name__

if __name__ == "__main__":
    try:
        print(json.dumps(read(main).describe()))
    except ImageError as error:
        print(error)
"""


def python(*arguments, cwd):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=True, cwd=cwd, env=environment
    ).stdout


def test_function_of_the_program_itself_is_its_file(write):
    root = write({"program.py": LOAD_OWN})
    output = python("program.py", cwd=root)
    assert '"kind": "script", "name": "program.py:main", "entry": "main", "module": "program"' in output


def test_function_of_a_program_run_as_a_module_is_that_module(write):
    root = write({"app/__init__.py": "", "app/__main__.py": LOAD_OWN})
    output = python("-m", "app", cwd=root)
    assert '"kind": "module", "name": "app.__main__:main", "entry": "main", "module": "app.__main__"' in output


def test_function_that_was_typed_in_is_refused(tmp_path):
    assert "has no file to load from" in python("-c", LOAD_OWN, cwd=tmp_path)
