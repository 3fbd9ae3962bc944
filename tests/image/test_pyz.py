from __future__ import annotations

import hashlib
import io
import struct
import zipapp
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multikernel.errors import ImageError
from multikernel.image import MAX_IMAGE, pyz, read

MAIN = "from app import words\ndef main(kernel):\n    return words.word, __name__\n"
TREE = {"src/__main__.py": MAIN, "src/app/__init__.py": "", "src/app/words.py": "word = 'packed'\n"}


def zipped(files: dict[str, str | bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def load(write, tmp_path):
    """Write a file and read it as an image."""

    def load(content: bytes, spec: str = "app.pyz"):
        write({"app.pyz": content})
        return read(spec, directory=str(tmp_path))

    return load


@pytest.mark.parametrize("compressed", [False, True])
def test_what_zipapp_makes_is_an_image(write, run, tmp_path, compressed):
    root = write(TREE)
    zipapp.create_archive(root / "src", root / "app.pyz", interpreter="/usr/bin/env python3", compressed=compressed)
    image = read("app.pyz", directory=str(root))
    assert (image.kind, image.name, image.entry, image.origin) == ("pyz", "app.pyz", "main", f"{root}/app.pyz")
    assert image.digest == hashlib.sha256((root / "app.pyz").read_bytes()).hexdigest()
    assert run(image) == "('packed', '__mk_main__')"


def test_what_becomes_of_the_file_changes_nothing(load, run, tmp_path):
    image = load(zipped({"__main__.py": "def main(k): return 'as loaded'\n"}))
    (tmp_path / "app.pyz").unlink()
    assert run(image) == "as loaded"


def test_another_function_can_be_named(load, run):
    content = zipped({"__main__.py": "class Server:\n    @staticmethod\n    def run(k): return 'run'\n"})
    assert run(load(content, "./app.pyz:Server.run")) == "run"


def test_program_in_it_is_not_run_as_a_program(load, run):
    source = "def main(k): return 'only main'\nif __name__ == '__main__':\n    1 / 0\n"
    assert run(load(zipped({"__main__.py": source}))) == "only main"


def test_data_in_it_is_found(load, run):
    source = """if True:
        import importlib.resources, pkgutil
        def main(kernel):
            return pkgutil.get_data(__name__, "top.txt"), (importlib.resources.files("app") / "inner.txt").read_text()
    """
    files = {"__main__.py": source, "top.txt": "above", "app/__init__.py": "", "app/inner.txt": "inside"}
    assert run(load(zipped(files))) == "(b'above', 'inside')"


def test_traceback_shows_the_source_in_it(load, enter):
    with load(zipped({"__main__.py": "import app\nmain = app.main\n", "app.py": "def main(k):\n    1 / 0\n"})) as image:
        assert 'File "image:app.py", line 2, in main\n    1 / 0' in enter(image).stderr


def test_archive_inside_of_it_is_a_file_like_any_other(load, run):
    inner = zipped({"__main__.py": "1 / 0\n"})
    content = zipped({"__main__.py": "def main(k): return 'outer'\n", "app.pyz": zipped({"app.pyz": inner})})
    assert run(load(content)) == "outer"
    with pytest.raises(ImageError, match=r"has no __main__\.py, but 1 other files"):
        load(zipped({"app.pyz": content}))


def test_main_that_is_imported_from_elsewhere_is_left_to_the_boot(load, run):
    content = zipped({"__main__.py": "from app import *\n", "app.py": "def main(k): return 'by star'\n"})
    assert run(load(content)) == "by star"


def bomb() -> bytes:
    """A GiB of zeros, in a MiB: after 256 MiB that is no image any more, whatever the entries are."""
    return zipped({"__main__.py": "", **{f"{n}": bytes(32 << 20) for n in range(9)}}, zipfile.ZIP_DEFLATED)


def encrypted() -> bytes:
    content = bytearray(zipped({"__main__.py": "x"}))
    content[6] |= 1  # in the local header
    content[content.index(b"PK\1\2") + 8] |= 1  # and in the directory
    return bytes(content)


def lying() -> bytes:
    """The directory says that there are ten bytes, and there are a million: what is unfolded is what was said."""
    content = bytearray(zipped({"__main__.py": b"#" * 1_000_000}, zipfile.ZIP_DEFLATED))
    struct.pack_into("<I", content, content.index(b"PK\1\2") + 24, 10)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", r"app\.pyz is no whole zip archive: File is not a zip file\. Make it anew"),
        (b"#!/usr/bin/env python3\n", r"no whole zip archive"),
        (zipped({"__main__.py": MAIN})[:-30], r"no whole zip archive"),
        (zipped({"__main__.py": MAIN}).replace(b"words.word", b"WORDS.word"), r"Bad CRC-32"),
        (zipped({"main.py": MAIN}), r"has no __main__\.py, but 1 other files\. Make it anew: python -m zipapp"),
        (
            zipped({"__main__.py": "import app\napp.main()\n"}),
            r"no function 'main'.*Write `def main\(kernel\)` there, or",
        ),
        (zipped({"__main__.py": "def main(:"}), r"__main__\.py is no Python source: invalid syntax, line 1"),
        (zipped({"../__main__.py": ""}), r"a file that would lie outside of it, or nowhere: '\.\./__main__\.py'"),
        (zipped({"/etc/passwd": ""}), r"a file that would lie outside"),
        (zipped({"a/../../b": ""}), r"a file that would lie outside"),
        (zipped({"a\\b": ""}), r"a file that would lie outside"),
        (zipped({"queue.py": "", "__main__.py": MAIN}), r"would hide the module 'queue' that others import"),
        (zipped({"multikernel/__init__.py": "", "__main__.py": MAIN}), r"would hide the module 'multikernel'"),
        (zipped({f"{n}.txt": "" for n in range(6)}), r"has 6 files; at most 5 may be in an image"),
        (bomb(), rf"would unfold into 301989888 bytes; an image has at most {MAX_IMAGE}"),
        (encrypted(), r"has an encrypted file, '__main__\.py'\. An instance has no key"),
        (lying(), r"no whole zip archive"),
        (
            zipped({"__main__.py": bytes(10**6)}, zipfile.ZIP_BZIP2),
            r"'__main__\.py' compressed in a way that Python runs",
        ),
        (
            zipped({"__main__.py": bytes(10**6)}, zipfile.ZIP_LZMA),
            r"'__main__\.py' compressed in a way that Python runs",
        ),
    ],
    ids=range(19),
)
def test_archive_that_cannot_be_an_image_is_refused_with_the_reason(load, monkeypatch, content, text):
    if "at most 5" in text:
        monkeypatch.setattr(pyz, "MAX_FILES", 5)
    with pytest.raises(ImageError, match=text):
        load(content)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_name_that_is_there_twice_is_refused(load):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__main__.py", "def main(k): pass\n")
        archive.writestr("__main__.py", "def main(k): 1 / 0\n")
    with pytest.raises(ImageError, match=r"has '__main__\.py' twice"):
        load(buffer.getvalue())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nothing.pyz", r"there is no file .*/nothing\.pyz\. Its directory has app\.pyz"),
        ("a/b.pyz", "of its directory: No"),
    ],
)
def test_archive_that_is_not_there_is_refused_with_those_that_are(load, name, text):
    load(zipped({"__main__.py": "def main(k): pass\n"})).close()
    with pytest.raises(ImageError, match=text):
        load(b"", name)


def test_sparse_archive_of_10_gib_is_refused_at_once(tmp_path):
    with open(tmp_path / "app.pyz", "wb") as sparse:
        sparse.truncate(10 << 30)
    with pytest.raises(ImageError, match=rf"app\.pyz is larger than the {MAX_IMAGE} bytes"):
        read("app.pyz", directory=str(tmp_path))


WHOLE = zipped({"__main__.py": MAIN, "app/__init__.py": "", "app/words.py": "x = 1\n" * 50}, zipfile.ZIP_DEFLATED)


@given(st.data())
def test_damaged_archive_is_refused_or_is_read_without_another_error(data):
    content = bytearray(WHOLE)
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[position] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]
    try:
        files = pyz.unpack(bytes(content))
    except ImageError:
        return
    assert sum(map(len, files.values())) <= MAX_IMAGE


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_anything_before_an_archive_is_skipped_and_anything_else_refused(before, other):
    assert pyz.unpack(before + WHOLE)["app/__init__.py"] == b""
    with pytest.raises(ImageError, match="no whole zip archive"):
        pyz.unpack(b"-" + other.replace(b"PK", b"-"))
