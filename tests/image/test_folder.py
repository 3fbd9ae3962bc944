from __future__ import annotations

import importlib.machinery
import os

import pytest

from multikernel.errors import ImageError
from multikernel.image import MAX_IMAGE, archive, read
from multikernel.image import files as reading

TREE = {
    "app/__main__.py": """\
        import helper
        from inner import words

        def main(kernel):
            return helper.x, words.word, __name__
        """,
    "app/helper.py": "x = 1\n",
    "app/inner/words.py": "word = 'no __init__'\n",
    "app/data.txt": "data",
    "app/json/table.json": "{}",
}


@pytest.fixture
def load(write, tmp_path):
    """Write files and read the directory `app`."""

    def load(files, spec="./app", **how):
        write(files)
        return read(spec, directory=str(tmp_path), **how)

    return load


def test_directory_with_a_main_is_an_image(load, run, tmp_path):
    image = load(TREE, path=["/lib"])
    assert (image.kind, image.name, image.entry) == ("directory", "./app", "main")
    assert (image.origin, image.path) == (f"{tmp_path}/app", ["/lib"])
    image.close()
    assert run(load(TREE)) == "(1, 'no __init__', '__mk_main__')"


@pytest.mark.parametrize("spec", ["app/", "./app:main", "app/../app", "app/."])
def test_any_path_of_the_directory_will_do(load, run, spec):
    assert run(load(TREE, spec)) == "(1, 'no __init__', '__mk_main__')"


def test_directory_where_one_stands_is_a_path_too(write, run, monkeypatch):
    monkeypatch.chdir(write(TREE) / "app")
    assert run(read(".")) == "(1, 'no __init__', '__mk_main__')"


def test_what_is_added_or_removed_afterwards_changes_nothing(load, run, write, tmp_path):
    source = """
    import importlib
    def main(kernel):
        import helper
        try:
            return importlib.import_module("added")
        except ImportError as error:
            return helper.x, error.name
    """
    image = load(TREE | {"app/__main__.py": source})
    write({"app/added.py": ""})
    (tmp_path / "app/helper.py").unlink()
    assert run(image) == "(1, 'added')"


def test_data_beside_main_is_that_of_the_image(load, run, write):
    source = "import pkgutil\ndef main(kernel):\n    return pkgutil.get_data(__name__, 'data.txt'), __file__\n"
    image = load(TREE | {"app/__main__.py": source})
    write({"app/data.txt": "edited"})
    assert run(image) == f"(b'data', '{image.origin}/__main__.py')"


def test_directory_of_data_hides_no_module_of_the_standard_library(load, run):
    source = "import json\ndef main(kernel):\n    return json.dumps(None)\n"
    assert run(load(TREE | {"app/__main__.py": source})) == "null"


def test_extension_module_stays_in_the_environment_and_is_found_there(load, run, tmp_path, enter):
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    source = "def main(kernel):\n    import fast\n"
    with load(TREE | {"app/__main__.py": source, f"app/fast{suffix}": b"no library"}) as image:
        assert f"fast{suffix}" not in archive.unpack(image.content())
        assert f"{tmp_path}/app/fast{suffix}: file too short" in enter(image).stderr


def test_same_files_have_the_same_digest_wherever_they_are(write):
    digests = set()
    for place in ("a", "b"):
        root = write(TREE, under=place)
        os.utime(root / "app/helper.py", (0, len(digests)))
        with read("./app", directory=str(root)) as image:
            digests.add(image.digest)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (
            {"app/main.py": ""},
            r"the directory .*/app has no __main__\.py\. Write one with `def main\(kernel\)`, or load",
        ),
        ({"app/__main__.py": "x = 1\n"}, r"no function 'main' in '\./app': __main__\.py has none\. Write `def main"),
        ({"app/__main__.py": "\n\ndef main(:"}, r"__main__\.py is no Python source: invalid syntax, line 3"),
        ({"app/__main__.py": "def main(k): 0", "app/types.py": ""}, r"would hide the module 'types' .*leave it out"),
        ({"app/__main__.py": "def main(k): 0", "app/queue/__init__.py": ""}, r"would hide the module 'queue'"),
    ],
)
def test_directory_that_cannot_be_an_image_is_refused_with_the_reason(load, files, text):
    with pytest.raises(ImageError, match=text):
        load(files)


@pytest.mark.parametrize(
    "source",
    [
        "async def main(kernel): 0",
        "class main:\n    def __init__(self, kernel): 0",
        "main = print",
        "for main in []: pass",
        "with open('x') as (main, y): pass",
        "import helper as main",
        "from helper import main",
        "from helper import *",
        "try:\n    from helper import main\nexcept ImportError:\n    1 / 0",
        "if (main := print): pass",
        "match print:\n    case main: pass",
        "match {}:\n    case {'x': 1, **main}: pass",
        "def make():\n    global main\n    main = print\nmake()",
        "globals()['main'] = print",
        "import sys\nsetattr(sys.modules[__name__], 'main', print)",
        "def __getattr__(name): return print",
        "exec('def main(kernel): 0')",
    ],
)
def test_main_that_there_may_be_is_left_to_the_boot(load, source):
    load({"app/__main__.py": source}).close()


@pytest.mark.parametrize(
    "source",
    ["", "def other(): main = 1", "class A:\n    def main(kernel): 0", "x = lambda main: 0", "main()", "print(main)"],
)
def test_main_that_there_cannot_be_is_refused(load, source):
    with pytest.raises(ImageError, match="no function 'main'"):
        load({"app/__main__.py": source})


def test_directory_with_too_much_in_it_is_refused(load, write, tmp_path, monkeypatch):
    write(TREE)
    with open(tmp_path / "app/weights.bin", "wb") as sparse:
        sparse.truncate(10 << 30)
    with pytest.raises(ImageError, match=rf"with .*weights\.bin it has more than the {MAX_IMAGE} bytes"):
        load({})
    (tmp_path / "app/weights.bin").unlink()
    monkeypatch.setattr(reading, "MAX_FILES", 4)
    with pytest.raises(ImageError, match=r"more than 4 files"):
        load({})


def test_word_is_a_module_and_the_error_says_how_a_directory_is_meant(load, tmp_path):
    with pytest.raises(ImageError, match=r"If the directory itself is meant, write \./app\."):
        load(TREE, "app", path=[str(tmp_path)])
