from __future__ import annotations

import json
import mmap
import os
import socket
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multikernel.errors import ImageError
from multikernel.image.initrd import Initrd, view
from multikernel.image.sealed import is_sealed, seal

LIMIT = 64 << 20
TREE = {"data/conf/table.txt": "1 2 3", "data/.hidden": "h", "data/é": b"\xff\0", "data/x.so": "x", "data/empty": ""}


def seen(initrd: Initrd):
    """What an instance that was given it would see."""
    return view({"something": -1} | {name: os.dup(fd) for name, fd in initrd.extra().items()})


def test_file_is_its_bytes_read_only_and_sealed(write):
    root = write({"table.bin": bytes(range(256)) * 1000})
    with Initrd.read(str(root / "table.bin"), LIMIT) as initrd:
        assert (initrd.kind, initrd.size) == ("file", 256_000)
        assert is_sealed(initrd.fd)
        assert os.readlink(f"/proc/self/fd/{initrd.fd}") == "/memfd:initrd:table.bin (deleted)"
        data = seen(initrd)
        assert data == (root / "table.bin").read_bytes()
        assert data.readonly
        assert isinstance(data.obj, mmap.mmap)  # mapped, not copied


def test_empty_file_is_an_initrd(write):
    with Initrd.read(str(write({"empty": ""}) / "empty"), LIMIT) as initrd:
        assert (initrd.size, seen(initrd)) == (0, b"")


def test_directory_is_a_mapping_of_all_its_files(write):
    with Initrd.read(str(write(TREE) / "data"), LIMIT) as initrd:
        assert initrd.kind == "directory"
        data = seen(initrd)
        assert {name: bytes(content) for name, content in data.items()} == {
            "conf/table.txt": b"1 2 3", ".hidden": b"h", "é": b"\xff\0", "x.so": b"x", "empty": b""
        }  # fmt: skip
        assert all(content.readonly for content in data.values())
        assert isinstance(data["é"].obj, mmap.mmap)
        with pytest.raises(TypeError):
            data["new"] = b""
        with pytest.raises(KeyError):
            data["nothing"]


def test_directory_without_files_is_an_initrd(tmp_path):
    with Initrd.read(str(tmp_path), LIMIT) as initrd:
        assert dict(seen(initrd)) == {}


def test_same_directory_is_the_same_bytes_and_any_tar_reads_them(write, tmp_path):
    packed = set()
    for place in ("a", "b"):
        root = write(TREE, under=place)
        os.utime(root / "data/empty", (0, len(packed)))
        with Initrd.read(str(root / "data"), LIMIT) as initrd:
            packed.add(os.pread(initrd.fd, initrd.size, 0))
    assert len(packed) == 1
    (tmp_path / "data.tar").write_bytes(packed.pop())
    with tarfile.open(tmp_path / "data.tar") as archive:
        assert archive.getnames() == [".hidden", "conf/table.txt", "empty", "x.so", "é"]


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda name: name not in (".", "..")
)


@given(st.dictionaries(NAMES, st.binary(max_size=2000), max_size=5))
def test_files_of_any_name_and_content_come_back(tmp_path_factory, files):
    root = tmp_path_factory.mktemp("any")
    for name, content in files.items():
        (root / name).write_bytes(content)
    with Initrd.read(str(root), LIMIT) as initrd:
        assert {name: bytes(content) for name, content in seen(initrd).items()} == files


def test_long_names_and_names_that_are_no_text_come_back(tmp_path):
    long = "/".join(["d" * 200] * 5)
    (tmp_path / long).mkdir(parents=True)
    (tmp_path / long / "f").write_text("deep")
    odd = os.fsdecode(b"\xff\xfe")
    (tmp_path / odd).write_text("odd")
    with Initrd.read(str(tmp_path), LIMIT) as initrd:
        data = seen(initrd)
    assert (bytes(data[f"{long}/f"]), bytes(data[odd])) == (b"deep", b"odd")


def test_links_are_followed_and_never_in_circles(write):
    root = write({"data/a": "1", "other": "2"})
    (root / "data/b").symlink_to(root / "other")
    (root / "data/again").symlink_to(root / "data")
    with Initrd.read(str(root / "data"), LIMIT) as initrd:
        assert {name: bytes(content) for name, content in seen(initrd).items()} == {"a": b"1", "b": b"2"}


def test_what_cannot_be_one_is_refused_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    with open("sparse", "wb") as sparse:
        sparse.truncate(10 << 30)
    os.mkdir("heap")
    for name in ("one", "two"):
        (tmp_path / "heap" / name).write_bytes(bytes(1000))
    os.mkdir("with_a_pipe")
    os.mkfifo("with_a_pipe/pipe")
    os.mkdir("with_a_hole")
    os.symlink("nowhere", "with_a_hole/link")
    for path, text in {
        "": r": it cannot be read: No such file",
        "nothing": r"nothing: it cannot be read: No such file or directory\.",
        "pipe": r"pipe: it is a pipe\. An initrd is a file or a directory of files\.",
        "socket": r"socket: it is a socket\.",
        "/dev/null": r"/dev/null: it is a character device\.",
        "sparse": r"sparse: with it there are more than the 2500 bytes that the instance has\. Give that more memory",
        "heap": r"heap/two: with it there are more than the 2500",
        "with_a_pipe": r"with_a_pipe/pipe: it is a pipe",
        "with_a_hole": r"with_a_hole/link: it cannot be read: No such file",
    }.items():
        before = os.listdir("/proc/self/fd")
        with pytest.raises(ImageError, match=f"cannot load the initrd {text}"):
            Initrd.read(path, 2500)
        assert os.listdir("/proc/self/fd") == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_that_may_not_be_read_is_refused(write):
    root = write({"secret": "x"})
    (root / "secret").chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        Initrd.read(str(root / "secret"), LIMIT)


def test_what_another_process_sent_is_checked(write):
    with Initrd.read(str(write({"a": "x"}) / "a"), LIMIT) as initrd:
        with Initrd.received("file", os.dup(initrd.fd)) as again:
            assert (again.size, seen(again)) == (1, b"x")
        with pytest.raises(ImageError, match="no initrds of kind 'cpio'; there are file, directory"):
            Initrd.received("cpio", initrd.fd)
    fd = os.memfd_create("open")
    try:
        with pytest.raises(ImageError, match="not sealed"):
            Initrd.received("file", fd)
    finally:
        os.close(fd)


@given(st.data())
def test_damaged_directory_is_refused_or_is_read_without_another_error(data):
    content = bytearray(CONTENT)
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[position] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)) | st.just(len(content)))]
    fd = seal(bytes(content), "initrd:damaged")
    try:
        found = view({"initrd:directory": fd})
    except ImageError:
        return
    json.dumps({name: len(part) for name, part in found.items()})
    assert sum(map(len, found.values())) <= len(content)


def packed() -> bytes:
    """A small archive as `Initrd.read` makes one."""
    blocks = b""
    for name, content in (("a", b"first"), ("dir/b", b"second" * 100)):
        info = tarfile.TarInfo(name)
        info.mode, info.size = 0o444, len(content)
        blocks += info.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512)
    return blocks + bytes(1024)


CONTENT = packed()
