"""The console ring: what is printed is what is read, the oldest goes first, and no writer holds up a reader."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from multikernel.errors import CorruptLane
from multikernel.shm.pages import Console, ConsoleView, as_text

F_SEAL_FUTURE_WRITE = 0x0010
HEAD, TAIL = 128, 136  # offsets of the two indices in the page


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def console(undo: ExitStack) -> Console:
    made = Console.create(3, 1, capacity=mmap.PAGESIZE)
    undo.callback(made.finish)
    return made


@pytest.fixture
def view(undo: ExitStack, console: Console) -> ConsoleView:
    made = ConsoleView(console.fd)
    undo.callback(made.close)
    return made


def test_lines_come_back_with_time_and_level(console, view):
    before = time.monotonic_ns()
    console.write("first\nsecond", level=3)
    lines, _ = view.lines()
    assert [(line.level, line.text, line.partial) for line in lines] == [(3, "first", False), (3, "second", True)]
    assert before <= lines[0].time_ns <= lines[1].time_ns <= time.monotonic_ns()
    assert view.text() == "first\nsecond"


def test_only_what_is_new_comes_after_a_position(console, view):
    console.write("old\n")
    _, position = view.lines()
    assert view.lines(position) == ([], position)
    console.write("new\n")
    assert as_text(view.lines(position)[0]) == "new\n"


@pytest.mark.parametrize("text", ["", "\n", "\n\n", "x" * 1000, "x" * 1001, "x" + "ü" * 1200, "a\nb\n" * 50])
def test_whatever_fits_comes_back_as_it_was(console, view, text):
    """Long lines are cut inside of the ring, also where a character has two bytes."""
    console.write(text)
    assert view.text() == text


def test_the_oldest_lines_go_first_and_only_whole_ones(console, view):
    for number in range(1000):
        console.write(f"line {number}\n")
    lines = [line.text for line in view.lines()[0]]
    assert lines == [f"line {number}" for number in range(1000 - len(lines), 1000)]
    assert len(lines) == mmap.PAGESIZE // (16 + 8)  # 16 bytes of header, 8 of text


def test_a_reader_that_was_overtaken_goes_on_with_the_oldest_line(console, view):
    console.write("line\n")
    _, position = view.lines()
    for number in range(1000):
        console.write(f"line {number}\n")
    lines, _ = view.lines(position)
    assert [(line.time_ns, line.text) for line in lines] == [(line.time_ns, line.text) for line in view.lines()[0]]


def test_the_first_line_after_a_gap_says_how_much_was_lost(console, view):
    console.write("line\n")
    _, position = view.lines()
    for number in range(1000):
        console.write(f"{number:08}\n")  # 24 bytes each
    lines, position = view.lines(position)
    assert lines[0].lost == int(lines[0].text) * 24 > 0
    assert not any(line.lost for line in lines[1:])
    console.write("next\n")
    assert [line.lost for line in view.lines(position)[0]] == [0]


def test_what_comes_out_of_a_pipe_is_in_the_console_when_it_is_finished(console, view):
    read, write = os.pipe()
    console.drain(read)
    text = "from the pipe\n" + "ü" * 1500 + "\nthe end, with a byte that is no text: "
    os.write(write, text.encode() + b"\xff")
    console.finish()
    os.close(write)
    assert view.text() == text + "\ufffd"


def test_a_finished_console_says_so(console):
    console.finish()
    console.finish()
    with pytest.raises(RuntimeError, match="finished"):
        console.write("x")


def test_a_closed_view_says_so(console, view):
    view.close()
    view.close()
    with pytest.raises(ValueError, match="closed"):
        view.lines()


def test_a_capacity_that_is_no_power_of_two_is_refused():
    with pytest.raises(OSError, match="10000 bytes"):
        Console.create(capacity=10000)


NUMBERS_FOR_EVER = """
import socket, sys
from multikernel.shm.pages import Console
parent = socket.socket(fileno=int(sys.argv[1]))
console = Console.create(1, 1, capacity=int(sys.argv[2]))
number = 0
while True:
    console.write("".join(f"{n}\\n" for n in range(number, number + 1000)))
    if not number:
        socket.send_fds(parent, [b"x"], [console.fd])
    number += 1000
"""


@pytest.fixture
def printing(undo: ExitStack) -> tuple[subprocess.Popen[bytes], ConsoleView]:
    """A process that prints numbers as fast as it can, and its console."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        arguments = [str(theirs.fileno()), str(mmap.PAGESIZE)]
        process = subprocess.Popen([sys.executable, "-c", NUMBERS_FOR_EVER, *arguments], pass_fds=[theirs.fileno()])
        undo.callback(process.wait)
        undo.callback(process.kill)
        theirs.close()
        ours.settimeout(30)
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    view = ConsoleView(fds[0])
    os.close(fds[0])
    undo.callback(view.close)
    return process, view


def check_numbers(lines: list[str], least: int) -> int:
    """Each line is a whole number, in order; some may be missing where the reader was overtaken. The last of them."""
    numbers = [int(line) for line in lines]
    assert numbers == sorted(set(numbers))
    assert all(number >= least for number in numbers)
    return numbers[-1] + 1 if numbers else least


def test_a_writer_that_never_stops_does_not_keep_its_reader(printing):
    """No more comes back than the console can hold, and nothing of it is torn or out of order."""
    _, view = printing
    least = position = 0
    for _ in range(3000):
        lines, position = view.lines(position)
        assert sum(16 + len(line.text) for line in lines) <= view.capacity + 16 + 1000
        least = check_numbers([line.text for line in lines], least)
    assert least > 0


def test_a_writer_killed_in_the_middle_leaves_whole_lines(printing):
    process, view = printing
    process.send_signal(signal.SIGKILL)
    process.wait()
    lines = [line.text for line in view.lines()[0]]
    assert check_numbers(lines, 0) > 0
    assert len(lines) == int(lines[-1]) - int(lines[0]) + 1


# --- a writer that scribbles over its own console


def forged(undo: ExitStack, head: int, tail: int, data: bytes) -> ConsoleView:
    """A view of a console whose indices and data are as given."""
    real = Console.create(3, 1, capacity=mmap.PAGESIZE)
    header = os.pread(real.fd, 64, 0)
    real.finish()
    fd = os.memfd_create("forged", os.MFD_ALLOW_SEALING)
    undo.callback(os.close, fd)
    page = bytearray(mmap.PAGESIZE)
    page[:64] = header
    struct.pack_into("=QQ", page, HEAD, head, tail)
    os.write(fd, bytes(page) + data.ljust(mmap.PAGESIZE, b"\0"))
    fcntl.fcntl(
        fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL | F_SEAL_FUTURE_WRITE
    )
    view = ConsoleView(fd)
    undo.callback(view.close)
    return view


LINE = struct.pack("=IHHQ", 2, 6, 0, 1) + b"hi".ljust(8, b"\0")


def test_a_forged_console_that_is_right_is_read(undo):
    assert forged(undo, 24, 0, LINE).text() == "hi\n"


@pytest.mark.parametrize(
    ("head", "tail", "length"),
    [
        (2 * mmap.PAGESIZE, 0, 2),  # more than there is room for
        (0, 24, 2),  # the oldest line is after the newest
        (20, 0, 2),  # between two words
        (24, 0, 0xFFFFFFFF),  # a line longer than any
        (24, 0, 900),  # a line that goes on after the newest
    ],
)
def test_indices_and_lengths_that_cannot_be_are_refused(undo, head, tail, length):
    data = struct.pack("=I", length) + LINE[4:]
    with pytest.raises(CorruptLane, match="scribbled"):
        forged(undo, head, tail, data).lines()


def test_any_position_can_be_asked_for(undo):
    view = forged(undo, 24, 0, LINE)
    for position in (8 * 5, 2**64 - 8, 2**63):
        lines, after = view.lines(position)
        assert [line.text for line in lines] in (["hi"], [])
        assert after == 24
