"""Programs as images: what is one is known by its content, and what would fail at boot is refused at load."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import multikernel as mk
from multikernel.errors import ImageError
from multikernel.image import MAX_IMAGE, read

SOURCE = """
#include <multikernel/kernel.h>
int main(void) { return mk_kernel_attach() ? 0 : 1; }
"""
MACHINE = 18  # where e_machine lies
NOTE = b"multikernel\0"


def compiled(directory: Path, source: str, *flags: str) -> Path:
    (directory / "image.c").write_text(source)
    program = directory / "image"
    command = ["cc", f"-I{mk.get_include()}", "image.c", mk.get_library(), "-pthread", "-o", str(program), *flags]
    subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=60)
    return program


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    return compiled(tmp_path_factory.mktemp("native"), SOURCE)


@pytest.fixture
def changed(program, tmp_path):
    """A program made of the good one's bytes."""

    def write(content: bytes) -> str:
        (tmp_path / "changed").write_bytes(content)
        return str(tmp_path / "changed")

    return write


def refusal(path: str) -> str:
    with pytest.raises(ImageError) as refused:
        read(path)
    assert repr(path) in str(refused.value)
    return str(refused.value)


def test_a_program_is_known_by_its_content(program, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(program.parent, tmp_path / "copy"))
    with read("./image") as image:
        assert (image.kind, image.name, image.module) == ("native", "./image", "image")
        assert image.origin == f"{tmp_path}/copy/image"
        assert image.content() == program.read_bytes()
        assert image.digest == hashlib.sha256(program.read_bytes()).hexdigest()


def test_what_was_loaded_stays_when_the_file_changes(changed, program):
    path = changed(program.read_bytes())
    with read(path) as image:
        Path(path).write_bytes(b"something else")
        assert image.content() == program.read_bytes()


@pytest.mark.parametrize("flags", [["-static"], ["-no-pie"], ["-static-pie"], ["-s"], ["-Wl,--gc-sections"]])
def test_a_program_is_one_however_it_is_linked(tmp_path, flags):
    with read(str(compiled(tmp_path, SOURCE, *flags))) as image:
        assert image.kind == "native"


def test_a_program_without_the_core_is_refused(tmp_path):
    said = refusal(str(compiled(tmp_path, "int main(void) { return 0; }")))
    assert "does not link the C core" in said
    assert "multikernel.get_library()" in said


def test_the_interpreter_itself_is_refused():
    assert "does not link the C core" in refusal(os.path.realpath(sys.executable))


def test_an_object_file_is_refused(tmp_path):
    assert "is no program" in refusal(str(compiled(tmp_path, SOURCE, "-r")))


def test_a_library_is_refused(tmp_path):
    (tmp_path / "image.c").write_text("int one(void) { return 1; }")
    subprocess.run(["cc", "-shared", "-fPIC", "image.c", "-o", "image.so"], cwd=tmp_path, check=True, timeout=60)
    assert "is no program" in refusal(f"{tmp_path}/image.so")


def test_a_program_for_another_machine_is_refused(changed, program):
    content = bytearray(program.read_bytes())
    foreign = 183 if os.uname().machine != "aarch64" else 62
    struct.pack_into("=H", content, MACHINE, foreign)
    said = refusal(changed(bytes(content)))
    assert ("aarch64" if foreign == 183 else "x86_64") in said
    assert os.uname().machine in said


@pytest.mark.parametrize(("at", "value"), [(4, 1), (5, 2)], ids=["another word size", "another byte order"])
def test_a_program_of_another_layout_is_refused(changed, program, at, value):
    content = bytearray(program.read_bytes())
    assert content[at] != value
    content[at] = value
    assert "is a program for" in refusal(changed(bytes(content)))


def test_a_program_of_another_abi_version_is_refused(changed, program):
    content = bytearray(program.read_bytes())
    at = content.index(NOTE) + len(NOTE)
    version = int.from_bytes(content[at : at + 4], sys.byteorder)
    content[at : at + 4] = (version + 1).to_bytes(4, sys.byteorder)
    assert f"ABI version {version + 1}; this one has {version}" in refusal(changed(bytes(content)))


@pytest.mark.parametrize("length", [4, 20, 63, 64, 500, 5000, -1])
def test_a_program_that_is_cut_off_is_refused(changed, program, length):
    assert "is cut off" in refusal(changed(program.read_bytes()[:length]))


def test_a_program_whose_loader_is_not_here_is_refused(changed, program):
    content = program.read_bytes()
    at = content.index(b"/lib")
    wrong = content[:at] + b"/bil" + content[at + 4 :]
    assert "the dynamic loader of another system" in refusal(changed(wrong))


def test_a_program_that_is_too_large_is_refused(tmp_path):
    with open(tmp_path / "large", "wb") as file:
        file.write(b"\x7fELF")
        file.truncate(MAX_IMAGE + 1)
    assert "is larger than" in refusal(f"{tmp_path}/large")


def test_damaged_headers_end_in_a_refusal_or_an_image(changed, program):
    """Bytes of the first kilobyte, one at a time: no other error, and no look beyond the file."""
    content = program.read_bytes()
    for at in range(16, 1024, 7):
        damaged = bytearray(content)
        damaged[at] ^= 0xFF
        try:
            read(changed(bytes(damaged))).close()
        except ImageError:
            continue
