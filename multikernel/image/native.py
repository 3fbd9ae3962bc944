"""Images that are programs: ELF executables that link the C core (multikernel/kernel.h).

What would fail at boot without a good word is found at load, from the file alone: nothing of it is run. The layout is
elf(5); the note is written by csrc/kernel.c.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

from multikernel.errors import ImageError

from .files import read_one
from .image import Image

_MAGIC = b"\x7fELF"
_NOTE = b"multikernel\0"
_EXECUTABLE, _SHARED = 2, 3  # e_type
_DYNAMIC, _INTERPRETER, _NOTES = 2, 3, 4  # p_type
_FLAGS_1, _PIE = 0x6FFFFFFB, 0x08000000  # a tag of the dynamic segment, and a bit of its value
_MACHINES = {3: "i686", 21: "ppc64le", 22: "s390x", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
"""By e_machine, what uname(2) calls it."""


class _Segment(NamedTuple):
    kind: int
    offset: int
    size: int


def detect(target: str, directory: str) -> bool:
    """Whether `target`, a path (it has a "/"), names an ELF file."""
    if "/" not in target or "\0" in target:
        return False
    try:
        fd = os.open(os.path.join(directory, target), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.pread(fd, len(_MAGIC), 0) == _MAGIC
    except OSError:  # a directory, or a pipe
        return False
    finally:
        os.close(fd)


def load(target: str, *, name: str, directory: str) -> Image:
    """Read the program at `target`, relative to `directory`.

    Raises:
        ImageError: it cannot be read, is damaged, is for another machine, no program, or does not link this core.
    """
    origin = os.path.normpath(os.path.join(directory, target))
    content = read_one(origin, name)
    reason = _why_not(content)
    if reason:
        raise ImageError(f"cannot load {name!r}: {origin} {reason}", path=origin)
    return Image.make(
        content, kind="native", name=name, entry="main", module=os.path.basename(origin), origin=origin, path=[]
    )


def _why_not(content: bytes) -> str | None:
    """Why this is no image, in words that go on after its name; None if it is one."""
    wide, little = content[4:5] == b"\2", content[5:6] == b"\1"
    layout = ("<" if little else ">") + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH")
    if len(content) < 16 + struct.calcsize(layout):
        return f"is cut off: it has {len(content)} bytes, fewer than the header of a program."
    header = struct.unpack_from(layout, content, 16)
    kind, machine = header[:2]
    if (wide, little) != (sys.maxsize > 1 << 32, sys.byteorder == "little") or not _is_ours(machine):
        bits = f"{64 if wide else 32} bits, {'little' if little else 'big'}-endian"
        there = _MACHINES.get(machine, f"machine {machine}")
        return f"is a program for {there} ({bits}), and this is {os.uname().machine}: build it here."
    segments = _segments(content, header, wide, little)
    if segments is None:
        return f"is cut off: it says that it is longer than its {len(content)} bytes. Build or copy it again."
    if not _is_program(content, kind, segments, wide, little):
        return "is no program, but an object file, a library or a dump: link it, with a main."
    from multikernel.shm.pages import ABI_VERSION

    version = _version(content, segments, little)
    if version is None:
        return (
            "does not link the C core: call mk_kernel_attach of <multikernel/kernel.h>, and link "
            "multikernel.get_library()."
        )
    if version != ABI_VERSION:
        return f"was built with a core of ABI version {version}; this one has {ABI_VERSION}: build it again."
    loader = _interpreter(content, segments)
    if loader is not None and not os.path.exists(loader):
        return f"wants {loader!r}, the dynamic loader of another system: build it here, or with -static."
    return None


def _is_ours(machine: int) -> bool:
    own = os.uname().machine
    return _MACHINES.get(machine) == own or own not in _MACHINES.values()


def _segments(content: bytes, header: tuple[int, ...], wide: bool, little: bool) -> list[_Segment] | None:
    """The program headers; None if they, or what they or the section headers speak of, reach beyond the file."""
    _, _, _, _, at, sections, _, _, size, count, section_size, section_count, _ = header
    layout = ("<" if little else ">") + ("IIQQQQQQ" if wide else "IIIIIIII")
    if count and (size != struct.calcsize(layout) or at + size * count > len(content)):
        return None
    if sections + section_size * section_count > len(content):
        return None
    found = []
    for each in struct.iter_unpack(layout, content[at : at + size * count]) if count else ():
        kind, offset, length = (each[0], each[2], each[5]) if wide else (each[0], each[1], each[4])
        if offset + length > len(content):
            return None
        found.append(_Segment(kind, offset, length))
    return found


def _is_program(content: bytes, kind: int, segments: list[_Segment], wide: bool, little: bool) -> bool:
    """Whether it can be started: executables that may lie anywhere have the type of a library, and say so elsewhere."""
    if kind != _SHARED:
        return kind == _EXECUTABLE
    layout = ("<" if little else ">") + ("qQ" if wide else "iI")
    for segment in segments:
        if segment.kind == _DYNAMIC:
            whole = segment.size - segment.size % struct.calcsize(layout)
            entries = struct.iter_unpack(layout, content[segment.offset : segment.offset + whole])
            if any(tag == _FLAGS_1 and value & _PIE for tag, value in entries):
                return True
    return False


def _version(content: bytes, segments: list[_Segment], little: bool) -> int | None:
    """The ABI version that the core's note says; None without one."""
    for segment in segments:
        if segment.kind == _NOTES:
            for name, value in _notes(content[segment.offset : segment.offset + segment.size], little):
                if name == _NOTE and len(value) == 4:
                    return int.from_bytes(value, "little" if little else "big")
    return None


def _notes(notes: bytes, little: bool) -> Iterator[tuple[bytes, bytes]]:
    """Name and value of each note that is whole."""
    at = 0
    while at + 12 <= len(notes):
        name_size, value_size, _ = struct.unpack_from("<III" if little else ">III", notes, at)
        value_at = at + 12 + (name_size + 3 & ~3)
        if value_at + value_size > len(notes):
            return
        yield notes[at + 12 : at + 12 + name_size], notes[value_at : value_at + value_size]
        at = value_at + (value_size + 3 & ~3)


def _interpreter(content: bytes, segments: list[_Segment]) -> str | None:
    for segment in segments:
        if segment.kind == _INTERPRETER:
            return os.fsdecode(content[segment.offset : segment.offset + segment.size].rstrip(b"\0"))
    return None
