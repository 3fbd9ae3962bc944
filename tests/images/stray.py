"""Tries to write what belongs to others.

Answers b"maps" with the shared mappings that it may only read. b"write ADDRESS" stores a byte there, and should not
live to answer. b"reopen" tries to get each read-only descriptor and mapping writable, and answers with what was
refused and what was not.
"""

from __future__ import annotations

import ctypes  # noqa: TID251 - a stray pointer is what this is about
import json
import mmap
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import multikernel as mk


def read_only_maps() -> list[tuple[str, int, int]]:
    """(object's name, begin, end) of every mapping of a memory object that is not writable."""
    with open("/proc/self/maps") as maps:
        lines = [re.match(r"(\w+)-(\w+) (r--s) \S+ \S+ \S+ +/memfd:(\S+)", line) for line in maps]
    return [(m[4], int(m[1], 16), int(m[2], 16)) for m in lines if m]


def attempts() -> list[list[str]]:
    """[what, result] of each try to get somebody else's object writable."""
    libc = ctypes.CDLL(None, use_errno=True)
    tried = []
    for name, begin, end in read_only_maps():
        result = libc.mprotect(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), 3)
        tried.append([f"mprotect {name}", "ALLOWED" if result == 0 else os.strerror(ctypes.get_errno())])
    for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if "/memfd:" not in target or "/memfd:crash:" in target:  # that is made for its own last words
            continue
        tried += [[f"{what} {target}", outcome(call, fd)] for what, call in WAYS.items()]
    return tried


def map_again(fd: int) -> None:
    """Open the object once more, for writing, and map it."""
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    try:
        mmap.mmap(again, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE).close()
    finally:
        os.close(again)


def write_again(fd: int) -> None:
    """Open the object once more, for writing, and write."""
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    try:
        os.pwrite(again, b"EVIL", 0)
    finally:
        os.close(again)


def truncate_again(fd: int) -> None:
    """Open the object once more, for writing, and take its memory away."""
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    try:
        os.ftruncate(again, 0)
    finally:
        os.close(again)


WAYS = {"map": map_again, "write": write_again, "truncate": truncate_again}


def outcome(call: object, fd: int) -> str:
    """What became of a try."""
    try:
        call(fd)  # type: ignore[operator]
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "ALLOWED"


def main(kernel: mk.Kernel) -> None:
    """Do as told."""
    for message in kernel.messages():
        verb, _, argument = bytes(message.payload).decode().partition(" ")
        if verb == "maps":
            message.reply(json.dumps(read_only_maps()).encode())
        elif verb == "reopen":
            message.reply(json.dumps(attempts()).encode())
        elif verb == "write":
            ctypes.memset(int(argument), 0x58, 1)
            message.reply(b"ALLOWED")
        elif verb == "connect":
            kernel.connect(argument)
            message.reply(b"connected")
