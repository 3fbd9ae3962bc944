from __future__ import annotations

import hashlib
import json
import mmap
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multikernel.errors import ImageError
from multikernel.image import MAX_IMAGE, Image
from multikernel.image.sealed import is_sealed, read_fd, seal


def make(content: bytes = b"content", **changed) -> Image:
    fields = {"kind": "script", "name": "a.py:main", "entry": "main", "module": "a", "origin": "/a.py", "path": ["/"]}
    return Image.make(content, **(fields | changed))


@pytest.fixture
def image():
    with make() as image:
        yield image


def test_content_is_what_was_given(image):
    assert image.content() == b"content"
    assert (image.size, image.digest) == (7, hashlib.sha256(b"content").hexdigest())


def test_memory_object_is_named_after_the_image(image):
    assert os.readlink(f"/proc/self/fd/{image.fd}") == "/memfd:image:a.py:main (deleted)"


def test_name_too_long_for_a_memory_object_is_cut():
    with make(name="é" * 300) as image:
        assert "/memfd:image:é" in os.readlink(f"/proc/self/fd/{image.fd}")
        assert image.name == "é" * 300


@pytest.mark.parametrize(
    "change",
    [
        lambda fd: os.pwrite(fd, b"x", 0),
        lambda fd: os.ftruncate(fd, 1),
        lambda fd: os.ftruncate(fd, 100),
        lambda fd: mmap.mmap(fd, 7, mmap.MAP_SHARED),
    ],
)
def test_nobody_can_change_it(image, change):
    again = os.open(f"/proc/self/fd/{image.fd}", os.O_RDWR)
    try:
        for fd in (image.fd, again):
            with pytest.raises(PermissionError):
                change(fd)
    finally:
        os.close(again)
    assert image.content() == b"content"


def test_description_and_descriptor_make_the_image_again(image):
    document = json.loads(json.dumps(image.describe()))
    with Image.from_description(document, os.dup(image.fd)) as again:
        assert again.describe() == image.describe()
        assert again.content() == b"content"


def test_close_is_idempotent(image):
    fd = image.fd
    image.close()
    image.close()
    assert image.fd == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_empty_content_is_an_image():
    with make(b"") as image, Image.from_description(image.describe(), os.dup(image.fd)) as again:
        assert again.content() == b""


def test_content_over_the_limit_is_refused():
    class Huge(bytes):
        def __len__(self):
            return MAX_IMAGE + 1

    with pytest.raises(ImageError, match=str(MAX_IMAGE)):
        make(Huge())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "elf"),
        ("kind", None),
        ("name", ""),
        ("name", 5),
        ("entry", "not a name"),
        ("entry", "a..b"),
        ("module", "a\0b"),
        ("origin", ["x"]),
        ("digest", "0" * 64),
        ("digest", ""),
        ("size", 6),
        ("size", 8),
        ("size", -1),
        ("size", "7"),
        ("size", MAX_IMAGE + 1),
        ("path", "/"),
        ("path", [1]),
        ("imports", "numpy 2.4"),
        ("imports", [1]),
        ("imports", ["numpy"]),
        ("imports", ["numpy 2.4, other 1"]),
        ("imports", ["numpy 2.4\n"]),
        ("imports", [f"numpy {'1' * 200}"]),
        ("imports", ["numpy 2.4"] * 201),
        ("extra", 1),
    ],
)
def test_wrong_description_is_refused_and_the_descriptor_stays_the_callers(image, field, value):
    with pytest.raises(ImageError):
        Image.from_description(image.describe() | {field: value}, image.fd)
    assert image.content() == b"content"


@pytest.mark.parametrize("field", ["kind", "name", "entry", "module", "origin", "digest", "size", "path", "imports"])
def test_description_with_a_field_missing_is_refused(image, field):
    description = image.describe()
    del description[field]
    with pytest.raises(ImageError, match=f"has .*{field}.*; this one"):
        Image.from_description(description, image.fd)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)


@given(
    field=st.sampled_from(["kind", "name", "entry", "module", "origin", "digest", "size", "path", "imports"]),
    value=JSON,
)
def test_any_description_is_refused_or_is_sound(field, value):
    with make() as image:
        try:
            again = Image.from_description(image.describe() | {field: value}, image.fd)
        except ImageError:
            return
        assert again.content() == b"content"
        assert json.loads(json.dumps(again.describe())) == again.describe()


def test_descriptor_that_is_not_sealed_is_refused(image):
    fd = os.memfd_create("image:forged", os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, b"content")
        with pytest.raises(ImageError, match="not sealed"):
            Image.from_description(image.describe(), fd)
    finally:
        os.close(fd)


def test_descriptor_that_is_no_memory_object_is_refused(image, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    for path in (tmp_path / "file", "/dev/null"):
        fd = os.open(path, os.O_RDONLY)
        try:
            with pytest.raises(ImageError, match="not sealed"):
                Image.from_description(image.describe(), fd)
        finally:
            os.close(fd)


def test_descriptor_with_another_content_of_the_same_size_is_refused(image):
    fd = seal(b"CONTENT", "image:other")
    try:
        with pytest.raises(ImageError, match="digest"):
            Image.from_description(image.describe(), fd)
    finally:
        os.close(fd)


def test_descriptor_is_read_without_moving_its_position():
    fd = seal(b"0123456789", "x")
    try:
        os.lseek(fd, 5, os.SEEK_SET)
        assert (read_fd(fd, 100), read_fd(fd, 3)) == (b"0123456789", b"012")
        assert os.lseek(fd, 0, os.SEEK_CUR) == 5
        assert is_sealed(fd)
    finally:
        os.close(fd)


def test_shortage_of_memory_is_an_error_at_once_and_leaves_nothing():
    """A file size limit stands for the memory that is not there: the allocation fails, not a later access."""
    code = (
        "import os, resource, signal\n"
        "from multikernel.image.sealed import seal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "before = os.listdir('/proc/self/fd')\n"
        "try: seal(bytes(8192), 'x')\n"
        "except OSError as error: print(error.strerror, os.listdir('/proc/self/fd') == before)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert result.stdout == "File too large True\n"
