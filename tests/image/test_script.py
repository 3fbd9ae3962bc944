from __future__ import annotations

import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from multikernel.errors import ImageError
from multikernel.image import MAX_IMAGE, read

MAIN = "def main(kernel):\n    return 'from main'\n"


def test_script_is_loaded_as_it_is(write, run):
    root = write({"server.py": MAIN})
    image = read("server.py:main", directory=str(root), path=["/lib"])
    assert image.content() == MAIN.encode()
    assert (image.kind, image.name, image.entry, image.module) == ("script", "server.py:main", "main", "server")
    assert (image.origin, image.path) == (f"{root}/server.py", [str(root), "/lib"])
    image.close()
    assert run(read("server.py:main", directory=str(root))) == "from main"


def test_entry_is_main_if_none_is_given(write, run):
    root = write({"server.py": MAIN})
    image = read(f"{root}/server.py")
    assert image.entry == "main"
    assert run(image) == "from main"


def test_relative_path_is_seen_from_the_working_directory(write, monkeypatch):
    monkeypatch.chdir(write({"sub/server.py": MAIN}))
    with read("sub/../sub/server.py:main") as image:
        assert image.origin == f"{os.getcwd()}/sub/server.py"


def test_editing_the_file_afterwards_changes_nothing(write, run):
    root = write({"server.py": MAIN})
    image = read("server.py:main", directory=str(root))
    write({"server.py": "def main(kernel):\n    return 'edited'\n"})
    assert run(image) == "from main"


def test_file_may_be_gone_by_the_time_it_boots(write, run):
    root = write({"server.py": MAIN})
    image = read("server.py:main", directory=str(root))
    (root / "server.py").unlink()
    assert run(image) == "from main"


def test_traceback_shows_the_source_that_was_loaded(write, enter):
    root = write({"server.py": "def main(kernel):\n    raise RuntimeError('boom')  # as loaded\n"})
    with read("server.py:main", directory=str(root)) as image:
        write({"server.py": "# edited\n# edited\n# edited\n"})
        result = enter(image)
    assert "File \"image:server.py\", line 2, in main\n    raise RuntimeError('boom')  # as loaded" in result.stderr
    assert "edited" not in result.stderr


def test_traceback_of_a_script_that_raises_on_import_has_no_frame_of_the_import_system(write, enter):
    root = write({"server.py": "1 / 0\n"})
    with read("server.py:main", directory=str(root)) as image:
        stderr = enter(image).stderr
    assert 'File "image:server.py", line 1' in stderr
    assert "importlib" not in stderr


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (b"x = 1\n\ndef main(:\n", r"server\.py is no Python source: invalid syntax, line 3: def main\(:"),
        (b"def main(kernel):\nreturn\n", r"expected an indented block.*, line 2: return"),
        (b"# coding: klingon\n", r"unknown encoding: klingon$"),
        (b"x = '\xff'\n", r"no Python source: .*decode"),
        (b"x = 1\0\n", r"no Python source: .*null bytes$"),
        (b"x = " + b"(" * 1000, r"too many nested parentheses"),
        (b"x = " + b"-" * 1_000_000 + b"1", r"no Python source: "),
    ],
    ids=["syntax", "indent", "encoding", "bytes", "NUL", "nested", "deep"],
)
def test_source_that_does_not_parse_is_refused_at_load_with_the_line(write, source, text):
    root = write({"server.py": source})
    with pytest.raises(ImageError, match=text):
        read("server.py:main", directory=str(root))


def test_warnings_about_the_source_are_the_instances_to_see_and_no_thread_loses_its_own(write):
    root = write({"server.py": "x = '\\d'\ndef main(k): return 5 is 5\n"})
    before, interval = list(warnings.filters), sys.getswitchinterval()

    def load(_):
        read("server.py:main", directory=str(root)).close()

    sys.setswitchinterval(1e-6)  # so that threads are in each other's way
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(load, range(200)))
    finally:
        sys.setswitchinterval(interval)
    assert warnings.filters == before


def test_module_is_named_by_its_stem_and_is_no_program(write, run):
    root = write(
        {"my-server.v2.py": "import sys\ndef main(k):\n    return __name__, sys.modules[__name__].main is main\n"}
    )
    assert run(read("my-server.v2.py:main", directory=str(root))) == "('my-server_v2', True)"


def test_script_called_main_is_no_program_either(write, run):
    root = write({"__main__.py": "def main(kernel):\n    return __name__\n"})
    assert run(read("__main__.py:main", directory=str(root))) == "main"


def test_script_imports_what_stands_beside_it(write, run):
    root = write(
        {"server.py": "import helper\ndef main(k):\n    return helper.word\n", "helper.py": "word = 'beside'\n"}
    )
    assert run(read("server.py:main", directory=str(root))) == "beside"


def test_file_of_the_script_is_where_it_was(write, run):
    root = write({"server.py": "def main(kernel):\n    return __file__\n"})
    assert run(read("server.py:main", directory=str(root))) == f"{root}/server.py"


def test_encoding_that_the_source_declares_is_heeded(write, run):
    root = write({"server.py": "# coding: latin-1\ndef main(k):\n    return ascii('é')\n".encode("latin-1")})
    assert run(read("server.py:main", directory=str(root))) == "'\\xe9'"


def test_dataclasses_pickle_and_inspect_work_in_it(write, run):
    root = write(
        {
            "server.py": """
            import dataclasses, inspect, pickle

            @dataclasses.dataclass
            class Point:
                x: "int"

            def main(kernel):
                return pickle.loads(pickle.dumps(Point(3))), inspect.getsource(Point).count("x: ")
            """
        }
    )
    assert run(read("server.py:main", directory=str(root))) == "(Point(x=3), 1)"


def test_function_inside_a_class_can_be_entered(write, run):
    root = write({"server.py": "class Server:\n    @staticmethod\n    def run(kernel):\n        return 'run'\n"})
    assert run(read("server.py:Server.run", directory=str(root))) == "run"


def test_missing_function_is_named_with_those_that_there_are(write, enter):
    source = "from os.path import join\nlimit = 5\nclass Server: pass\ndef start(k): pass\ndef _hidden(k): pass\n"
    root = write({"server.py": source})
    with read("server.py:mian", directory=str(root)) as image:
        assert "no function 'mian' in 'server.py:mian': it has Server, start." in enter(image).stderr
    with read("server.py:limit", directory=str(root)) as image:
        assert "'limit' is of type int, no function in 'server.py:limit'" in enter(image).stderr


def test_image_enters_in_a_process_that_is_closed_to_others_and_another_user(write, run):
    """An instance closes itself before it gets anything; the descriptor must be all that it needs."""
    root = write({"server.py": MAIN})
    confine = """
import ctypes, os, linecache, io
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0
assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0
"""
    assert run(read("server.py:main", directory=str(root)), confine=confine) == "from main"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("serve.py:main", r"there is no file .*/serve\.py\. Its directory has other\.py, server\.py"),
        ("nowhere/serve.py:main", r"there is no file .*, and of its directory: No such file"),
        ("folder.py:main", r"the directory .*/folder\.py has no __main__\.py\. Write one with `def main\(kernel\)`"),
        ("./notes:main", r"notes is no Python source\. A script's name ends in \.py"),
        ("./server:main", r"there is no file .*/server\. There is server\.py\."),
        ("./serve:main", r"there is no file .*/serve\. Its directory has notes\."),
        ("./folder.py/", r"has no __main__\.py"),
        ("pipe.py:main", r"pipe\.py cannot be read: it is not a regular file"),
        ("large.py:main", rf"large\.py is larger than the {MAX_IMAGE} bytes"),
        ("loop.py:main", r"loop\.py cannot be read: Too many levels"),
        ("server.py:not-a-name", r"'not-a-name' in .* cannot be a function's name"),
        ("server.py:", r"'' in .* cannot be a function's name"),
        ("ser\0ver.py:main", r"no NUL"),
        ("", r"'' is no image: write FILE\.py:FUNCTION, PACKAGE\.MODULE:FUNCTION, FILE\.pyz, or a path of a directory"),
        (":", r"':' is no image"),
        ("a b", r"'a b' is no image"),
        ("../x/queue.py:main", r"would hide the module 'queue'.*another name"),
        ("../x/multikernel.py:main", r"would hide the module 'multikernel'"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_reason(write, spec, text):
    root = write({"server.py": MAIN, "other.py": MAIN, "folder.py/x": "", "notes": ""}, under="here")
    write({"queue.py": MAIN, "multikernel.py": MAIN}, under="x")
    os.mkfifo(root / "pipe.py")
    (root / "loop.py").symlink_to("loop.py")
    with open(root / "large.py", "wb") as sparse:
        sparse.truncate(1 << 40)
    if "there is" in text:  # what the directory has is then as it is listed here
        for name in ("pipe.py", "loop.py", "large.py"):
            (root / name).unlink()
        (root / "folder.py/x").unlink()
        (root / "folder.py").rmdir()
    with pytest.raises(ImageError, match=text):
        read(spec, directory=str(root))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_script_that_may_not_be_read_is_refused(write):
    root = write({"server.py": MAIN})
    (root / "server.py").chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        read("server.py:main", directory=str(root))


@pytest.mark.parametrize("spec", [None, 5, b"server.py:main"])
def test_what_is_neither_text_nor_callable_is_a_type_error(spec):
    with pytest.raises(TypeError, match="an image is text"):
        read(spec)


def test_refused_image_leaves_no_descriptor(write):
    root = write({"server.py": MAIN})
    before = len(os.listdir("/proc/self/fd"))
    for spec in ("nothing.py", "server.py:1", "nothing:main", "."):
        with pytest.raises(ImageError):
            read(spec, directory=str(root))
    assert len(os.listdir("/proc/self/fd")) == before


def test_loading_does_not_run_the_script(write):
    root = write({"server.py": "import sys\nsys.was_run = True\n"})
    read("server.py:main", directory=str(root)).close()
    assert not hasattr(sys, "was_run")
