from __future__ import annotations

import hashlib
import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multikernel.errors import ImageError
from multikernel.image import archive

NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20)
FILES = st.dictionaries(NAMES, st.binary(max_size=100), max_size=5)


@given(FILES)
def test_files_come_back_as_they_were(files):
    assert archive.unpack(archive.pack(files)) == files


@given(FILES, st.randoms())
def test_same_files_are_the_same_bytes_in_whatever_order(files, random):
    shuffled = list(files.items())
    random.shuffle(shuffled)
    assert archive.pack(dict(shuffled)) == archive.pack(files)


def test_archive_does_not_change_with_library_or_python():
    """A digest that a user wrote down stays good."""
    packed = archive.pack({"pkg/__init__.py": b"", "pkg/é.py": b"x = 1\n"})
    assert hashlib.sha256(packed).hexdigest() == "25a6655ff8774975dc7df64c8864d9cdacabc6eec6020e7229e99fa0a27f9b65"


@given(FILES, st.data())
def test_damaged_archive_is_refused_or_is_read_without_another_error(files, data):
    content = bytearray(archive.pack(files))
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    try:
        archive.unpack(bytes(content))
    except ImageError:
        pass


@given(st.binary(max_size=200))
def test_anything_but_an_archive_is_refused(content):
    with pytest.raises(ImageError, match="damaged"):
        archive.unpack(content)


def test_compressed_archive_is_refused():
    """Ours are stored: a small image cannot unfold into a large one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("pkg.py", bytes(1 << 20))
    with pytest.raises(ImageError, match="compressed"):
        archive.unpack(buffer.getvalue())
