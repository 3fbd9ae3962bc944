from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import shutil
import sys
import zipfile

import pytest

from multikernel.errors import ImageError
from multikernel.image import archive, read
from multikernel.image import files as reading

PACKAGE = {
    "lib/pkg/__init__.py": "version = 1\n",
    "lib/pkg/service.py": """\
        from . import words
        from .sub import deep

        def main(kernel):
            return words.word + deep.word
        """,
    "lib/pkg/words.py": "word = 'one'\n",
    "lib/pkg/sub/__init__.py": "",
    "lib/pkg/sub/deep.py": "word = ' deep'\n",
    "lib/pkg/table.txt": "data as loaded",
}


@pytest.fixture
def load(write, tmp_path):
    """Write files and read an image of them, with `lib` on the import path."""

    def load(files, spec, *more: str):
        write(files)
        return read(spec, directory=str(tmp_path), path=["lib", *more, *sys.path])

    return load


def test_whole_package_is_loaded(load, run, tmp_path):
    image = load(PACKAGE, "pkg.service:main")
    assert (image.kind, image.name, image.entry, image.module) == ("module", "pkg.service:main", "main", "pkg.service")
    assert (image.origin, image.path[0]) == (f"{tmp_path}/lib/pkg", f"{tmp_path}/lib")
    assert run(image) == "one deep"


def test_editing_adding_and_removing_files_afterwards_changes_nothing(load, run, write, tmp_path):
    source = """
    from importlib import import_module

    def main(kernel):
        from . import words
        try:
            return import_module("pkg.added")
        except ImportError as error:
            return words.word, error.name
    """
    image = load(PACKAGE | {"lib/pkg/service.py": source}, "pkg.service:main")
    write({"lib/pkg/words.py": "word = 'edited'\n", "lib/pkg/added.py": ""})
    (tmp_path / "lib/pkg/service.py").unlink()
    assert run(image) == "('one', 'pkg.added')"


def test_package_may_be_gone_by_the_time_it_boots(load, run, tmp_path):
    image = load(PACKAGE, "pkg.service:main")
    shutil.rmtree(tmp_path / "lib")
    assert run(image) == "one deep"


def test_traceback_shows_the_source_that_was_loaded(load, enter, write):
    files = PACKAGE | {"lib/pkg/words.py": "word = 1 / 0  # as loaded\n"}
    with load(files, "pkg.service:main") as image:
        write({"lib/pkg/words.py": "# edited\n"})
        stderr = enter(image).stderr
    assert 'File "image:pkg/service.py", line 1, in <module>\n    from . import words' in stderr
    assert 'File "image:pkg/words.py", line 1, in <module>\n    word = 1 / 0  # as loaded' in stderr
    assert "importlib" not in stderr


def test_module_of_a_single_file_is_loaded_alone(load, run):
    files = {"lib/one.py": "import two\ndef main(kernel):\n    return __name__, two.x\n", "lib/two.py": "x = 2\n"}
    image = load(files, "one:main")
    assert image.origin.endswith("/lib/one.py")
    assert run(image) == "('one', 2)"


def test_package_itself_can_be_entered(load, run):
    assert run(load({"lib/pkg/__init__.py": "def main(kernel):\n    return __path__ != []\n"}, "pkg")) == "True"


def test_namespace_package_is_loaded_with_all_its_portions(load, run):
    files = {
        "lib/space/a/one.py": "from space.b import two\ndef main(kernel):\n    return two.word, __name__\n",
        "more/space/b/two.py": "word = 'from the other portion'\n",
        "more/space/a/one.py": "raise SystemExit('the first portion has this name')\n",
    }
    assert run(load(files, "space.a.one:main", "more")) == "('from the other portion', 'space.a.one')"


def test_extension_module_in_the_package_comes_from_the_environment(load, run, tmp_path):
    """One of the interpreter's own stands for a compiled part of the user's package."""
    compiled = importlib.util.find_spec("_queue").origin
    if compiled == "built-in":
        pytest.skip("this interpreter has its extension modules built in")
    source = """
    from ._queue import Empty

    def main(kernel):
        from . import _queue
        return _queue.__file__
    """
    name = f"lib/pkg/{os.path.basename(compiled)}"
    with open(compiled, "rb") as file:
        image = load({"lib/pkg/__init__.py": "", "lib/pkg/m.py": source, name: file.read()}, "pkg.m:main")
    assert b"\x7fELF" not in image.content()
    assert run(image) == f"{tmp_path}/{name}"


def test_data_of_the_package_is_in_the_image_and_beside_file_is_the_environment(load, run, write):
    source = """
    import importlib.resources, pathlib

    def main(kernel):
        table = importlib.resources.files("pkg") / "table.txt"
        listed = sorted(each.name for each in importlib.resources.files("pkg").iterdir())
        return table.read_text(), (pathlib.Path(__file__).parent / "table.txt").read_text(), listed
    """
    files = {name: text for name, text in PACKAGE.items() if "sub" not in name} | {"lib/pkg/service.py": source}
    image = load(files, "pkg.service:main")
    write({"lib/pkg/table.txt": "edited"})
    assert run(image) == "('data as loaded', 'edited', ['__init__.py', 'service.py', 'table.txt', 'words.py'])"


def test_caches_and_hidden_files_stay_out(load, tmp_path):
    files = PACKAGE | dict.fromkeys(
        [
            "lib/pkg/__pycache__/words.cpython-311.pyc",
            "lib/pkg/.git/config",
            "lib/pkg/.env",
            "lib/pkg/old.pyc",
            "lib/pkg/libx.so.1.2",
        ],
        "x",
    )
    with load(files, "pkg.service:main") as image:
        names = list(archive.unpack(image.content()))
    assert names == sorted(name.removeprefix("lib/") for name in PACKAGE)


def test_same_files_have_the_same_digest_wherever_they_are(write, tmp_path):
    digests = set()
    for place in ("a", "b"):
        root = write(PACKAGE, under=place)
        os.utime(root / "lib/pkg/words.py", (0, len(digests)))
        with read("pkg.service:main", path=[f"{root}/lib"]) as image:
            digests.add(image.digest)
    assert len(digests) == 1


def test_loading_imports_nothing_of_the_image(load):
    files = {
        "lib/unseen/__init__.py": "raise SystemExit",
        "lib/unseen/sub/__init__.py": "raise SystemExit",
        "lib/unseen/sub/m.py": "1 / 0\n",
    }
    load(files, "unseen.sub.m:main").close()
    assert not [name for name in sys.modules if name.startswith("unseen")]


def test_what_was_imported_before_under_the_name_is_not_what_runs(load, run, write, tmp_path):
    """A zygote may have imported something of that name; the image is what was loaded."""
    image = load(PACKAGE, "pkg.service:main")
    other = write({"pkg/__init__.py": "", "pkg/words.py": "word = 'of the environment'\n"}, under="other")
    assert run(image, before=f"sys.path.insert(0, {str(other)!r}); import pkg.words") == "one deep"


def test_module_of_this_library_can_be_an_image_and_shares_its_classes(enter):
    """The demo's images are of this kind. An error that one raises must be the one that the kernel catches."""
    before = (
        "import atexit\nfrom multikernel.errors import ResourceError as first\n"
        "atexit.register(lambda: print(sys.modules['multikernel.resources.names'].ResourceError is first))"
    )
    with read("multikernel.resources.names:check_name") as image:
        result = enter(image, before=before)
    assert 'File "image:multikernel/resources/names.py"' in result.stderr
    assert result.stdout == "True\n"


def test_optional_submodule_that_is_missing_is_a_module_not_found(load, run):
    source = """
    try:
        from . import speedups
    except ImportError as error:
        speedups = str(error)
    def main(kernel):
        return speedups
    """
    assert "cannot import name 'speedups'" in run(load({"lib/pkg/__init__.py": source}, "pkg:main"))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("nothing_here:main", r"there is no module 'nothing_here' on the import path \(/.*lib.*\).*FILE\.py:FUNCTION"),
        ("pkg.mian:main", r"no source of a module 'pkg\.mian'; 'pkg' has service, words\."),
        ("pkg.sub.nothing:main", r"'pkg\.sub' has deep\."),
        ("pkg.service.deeper:main", r"'pkg\.service' has none\."),
        ("space.a:main", r"'space\.a' is a directory without __init__\.py"),
        ("compiled:main", r"compiled.* is not Python source"),
        ("zipped.m:main", r"inside of an archive"),
        ("link.m:main", r"no source of a module 'link\.m'"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_what_is_there(load, tmp_path, spec, text):
    files = PACKAGE | {
        "lib/space/a/one.py": "",
        "lib/compiled" + importlib.machinery.EXTENSION_SUFFIXES[0]: "",
        "lib/link/x.py": "",
    }
    (tmp_path / "lib").mkdir()
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        packed.writestr("zipped/__init__.py", "")
        packed.writestr("zipped/m.py", "")
    (tmp_path / "lib/link").mkdir()
    (tmp_path / "lib/link/again").symlink_to(".")
    with pytest.raises(ImageError, match=text):
        load(files, spec, "packed.zip")


def test_module_that_is_built_in_is_refused():
    with pytest.raises(ImageError, match=r"'sys' \(built-in\) is not Python source"):
        read("sys:main")


def test_directory_that_is_no_package_but_a_heap_of_files_is_refused(load, monkeypatch):
    monkeypatch.setattr(reading, "MAX_FILES", 5)
    with pytest.raises(ImageError, match=r"more than 5 files\. Is it a package"):
        load(PACKAGE, "pkg.service:main")


def test_package_larger_than_an_image_can_be_is_refused(load, tmp_path, write):
    write(PACKAGE)
    with open(tmp_path / "lib/pkg/weights.bin", "wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(ImageError, match=r"with .*weights\.bin it has more than the"):
        load({}, "pkg.service:main")
