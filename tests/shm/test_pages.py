"""The host's machine page and an instance's status page: what is written is what is read, whoever dies meanwhile."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multikernel._core import ffi, lib
from multikernel.errors import CorruptLane
from multikernel.shm.pages import (
    PHASES,
    STATES,
    Console,
    ConsoleView,
    Counters,
    End,
    ImageRecord,
    InstanceRecord,
    MachinePage,
    MachineRecord,
    MachineView,
    StatusPage,
    StatusView,
)

F_SEAL_FUTURE_WRITE = 0x0010


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def page(undo: ExitStack) -> MachinePage:
    made = MachinePage.create("demo")
    undo.callback(made.close)
    return made


@pytest.fixture
def view(undo: ExitStack, page: MachinePage) -> MachineView:
    made = MachineView(page.fd)
    undo.callback(made.close)
    return made


@pytest.fixture
def status(undo: ExitStack) -> StatusPage:
    made = StatusPage.create(7, 3)
    undo.callback(made.close)
    return made


@pytest.fixture
def status_view(undo: ExitStack, status: StatusPage) -> StatusView:
    made = StatusView(status.fd)
    undo.callback(made.close)
    return made


@contextmanager
def child(program: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process that runs `program`, which sends one descriptor through `parent`; the process and the descriptor."""
    ours, theirs = socket.socketpair()
    start = f"import socket, sys\nparent = socket.socket(fileno={theirs.fileno()})\n"
    with ours, theirs:
        process = subprocess.Popen([sys.executable, "-c", start + program], pass_fds=[theirs.fileno()])
        theirs.close()
        fds: list[int] = []
        try:
            ours.settimeout(30)
            _, fds, _, _ = socket.recv_fds(ours, 1, 1)
            assert len(fds) == 1, "the child ended before it had sent anything"
            yield process, fds[0]
        finally:
            for fd in fds:
                os.close(fd)
            process.kill()
            process.wait()


# --- the machine page


def test_machine_record_comes_back_as_it_was_written(page, view):
    record = MachineRecord("demo", 99, True, 3, 123, 456, 2**40, 2**30, (0, 63, 64, 1023))
    page.write_machine(record)
    assert view.machine() == record


def test_instance_record_comes_back_as_it_was_written(page, view):
    record = InstanceRecord(
        id=511,
        name="wéb",
        state="failed",
        pid=99,
        epoch=2**40,
        state_time_ns=2**60,
        memory=2**40,
        image=4,
        exclusive=False,
        cpus=(1, 65),
        end=End("signal", -1, 9, "Traceback\nValueError: ü\n", forced=True),
        cmdline="port=8080",
        console_tail="the last words\n",
    )
    page.write_instance(record)
    assert view.instance(511) == record
    assert view.instances() == [record]


@pytest.mark.parametrize("state", STATES)
def test_every_state_can_be_written(page, view, state):
    page.write_instance(InstanceRecord(1, "web", state))
    assert view.instance(1).state == state


def test_instances_are_listed_by_id_and_cleared_ones_are_gone(page, view):
    for number in (5, 1, 3):
        page.write_instance(InstanceRecord(number, f"n{number}"))
    page.clear_instance(3)
    assert [record.id for record in view.instances()] == [1, 5]
    assert view.instance(3) is None


def test_images_are_listed_by_id_wherever_they_lie(page, view):
    first = ImageRecord(1, "script", "server.py:main", 2**33, "ab" * 32, 2)
    second = ImageRecord(
        2, "module", "pkg.mod:main", 10, "cd" * 32, signature="ef" * 8, imports=("python 3.11.7", "x -")
    )
    page.write_image(127, first)
    page.write_image(0, second)
    page.write_image(1, ImageRecord(3, "script", "x", 1, "00" * 32))
    page.clear_image(1)
    assert view.images() == [first, second]


@given(st.lists(st.integers(1, 60), max_size=60))
def test_imports_of_an_image_are_listed_whole_as_far_as_they_fit(lengths):
    imports = tuple(f"{'é' * (length // 2)}x 1.0" for length in lengths)
    with ExitStack() as undo:
        page = MachinePage.create("imports")
        undo.callback(page.close)
        view = MachineView(page.fd)
        undo.callback(view.close)
        page.write_image(0, ImageRecord(1, "script", "x", 1, "", imports=imports))
        [image] = view.images()
    if len(", ".join(imports).encode()) <= 1000:
        assert image.imports == imports
    elif image.imports != imports:
        assert image.imports == (*imports[: len(image.imports) - 1], "...")
        assert len(", ".join(imports[: len(image.imports)]).encode()) > 1000


@pytest.mark.parametrize("number", [0, 512])
def test_an_id_that_cannot_be_is_refused_by_the_writer_and_has_nothing_for_the_reader(page, view, number):
    with pytest.raises(ValueError, match="1 to 511"):
        page.write_instance(InstanceRecord(number, "web"))
    assert view.instance(number) is None


def test_an_image_slot_that_cannot_be_is_refused(page):
    with pytest.raises(ValueError, match="0 to 127"):
        page.write_image(128, ImageRecord(1, "script", "x", 1, ""))


def test_a_cpu_beyond_the_page_is_refused_and_nothing_is_written(page, view):
    with pytest.raises(ValueError, match="1023"):
        page.write_instance(InstanceRecord(1, "web", cpus=(1024,)))
    assert view.instances() == []


def test_long_texts_are_cut_between_characters_and_tails_keep_their_end(page, view):
    page.write_instance(
        InstanceRecord(
            1, "ü" * 64, cmdline="ü" * 500, console_tail="x" + "ü" * 2000, end=End("exit", traceback="é" * 999)
        )
    )
    record = view.instance(1)
    assert record.name == "ü" * 33  # 67 bytes and the zero
    assert record.cmdline == "ü" * 127
    assert record.console_tail == "ü" * ((lib.MK_CONSOLE_TAIL - 1) // 2)
    assert record.end is not None
    assert record.end.traceback == "é" * 511


def test_a_zero_byte_hides_nothing_of_what_follows_it(page, view):
    page.write_instance(InstanceRecord(1, "web", console_tail="before\0after"))
    assert view.instance(1).console_tail == "before\ufffdafter"


# --- one writer


@pytest.mark.parametrize("kind", ["machine", "status", "console"])
def test_nobody_else_can_write_a_page_or_map_it_writable(undo, page, status, kind):
    console = Console.create()
    undo.callback(console.finish)
    fd = {"machine": page.fd, "status": status.fd, "console": console.fd}[kind]
    with pytest.raises(OSError, match=r"Operation not permitted|Bad file descriptor"):
        os.pwrite(fd, b"x", 64)
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    undo.callback(os.close, again)
    with pytest.raises(PermissionError):
        os.pwrite(again, b"x", 64)
    with pytest.raises(PermissionError):
        mmap.mmap(again, mmap.PAGESIZE)


@pytest.mark.parametrize("make", [MachineView, StatusView, ConsoleView])
def test_what_is_no_page_is_refused_with_what_it_is(undo, status, page, make):
    null = os.open("/dev/null", os.O_RDONLY)
    undo.callback(os.close, null)
    plain = os.memfd_create("plain", os.MFD_ALLOW_SEALING)
    undo.callback(os.close, plain)
    os.truncate(plain, 4096)
    other = page.fd if make is StatusView else status.fd
    with pytest.raises(CorruptLane, match="no memfd"):
        make(null)
    with pytest.raises(CorruptLane, match="not sealed"):
        make(plain)
    with pytest.raises(CorruptLane, match=r"it is a (machine|status) object"):
        make(other)


def test_a_page_of_another_version_is_refused_with_both_numbers(undo, status):
    header = bytearray(os.pread(status.fd, 64, 0))
    struct.pack_into("=I", header, 8, 99)  # abi
    forged = os.memfd_create("forged", os.MFD_ALLOW_SEALING)
    undo.callback(os.close, forged)
    size = os.fstat(status.fd).st_size
    os.write(forged, bytes(header) + bytes(size - len(header)))
    fcntl.fcntl(
        forged,
        fcntl.F_ADD_SEALS,
        fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL | F_SEAL_FUTURE_WRITE,
    )
    with pytest.raises(CorruptLane, match=f"ABI version 99, this library has {lib.MK_ABI_VERSION}"):
        StatusView(forged)


# --- closing


def test_a_closed_page_says_so_and_closing_twice_is_fine(page, view, status, status_view):
    for each in (page, view, status, status_view):
        each.close()
        each.close()
    for use in (view.machine, view.instances, view.images, status_view.read):
        with pytest.raises(ValueError, match="closed"):
            use()
    with pytest.raises(ValueError, match="closed"):
        page.write_instance(InstanceRecord(1, "web"))
    with pytest.raises(RuntimeError, match="closed"):
        status.beat()


def test_what_was_written_stays_readable_after_the_writer_has_closed(page, view, status, status_view):
    page.write_instance(InstanceRecord(1, "web"))
    status.phase("ready")
    page.close()
    status.close()
    assert view.instance(1).name == "web"
    assert status_view.read().phase == "ready"


def test_a_forked_copy_is_refused_and_not_killed_by_the_missing_pages():
    program = """
import os
from multikernel.errors import NotOwner
from multikernel.shm.pages import *
page, status, console = MachinePage.create("m"), StatusPage.create(1, 1), Console.create()
view, status_view, console_view = MachineView(page.fd), StatusView(status.fd), ConsoleView(console.fd)
uses = [view.instances, status_view.read, console_view.lines, status.beat, lambda: console.write("x"),
        lambda: page.write_instance(InstanceRecord(1, "web"))]
pid = os.fork()
if not pid:
    refused = 0
    for use in uses:
        try:
            use()
        except NotOwner:
            refused += 1
    for each in (view, status_view, console_view, page, status):
        each.close()
    console.finish()
    os._exit(refused)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == len(uses)
for use in uses:
    use()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)


def test_one_thread_may_close_what_another_reads():
    """A client that is closed while its view is read raises there; it does not pull the page from under the reader."""
    program = """
import threading
from multikernel.shm.pages import *
page, status, console = MachinePage.create("m"), StatusPage.create(1, 1), Console.create()
console.write("line\\n" * 1000)
def read(use, begun):
    try:
        while True:
            use()
            begun.set()
    except ValueError:
        pass
for round in range(20):
    views = MachineView(page.fd), StatusView(status.fd), ConsoleView(console.fd)
    for view, use in zip(views, (views[0].images, views[1].read, views[2].lines)):
        begun = threading.Event()
        thread = threading.Thread(target=read, args=(use, begun))
        thread.start()
        begun.wait()
        view.close()
        thread.join()
with open("/proc/self/maps") as maps:
    left = [line for line in maps if "/memfd:" in line]
assert len(left) == 3, left  # the writers' own
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)


# --- a writer that is in the middle, or died there

TWO_RECORDS_FOR_EVER = """
from multikernel._core import ffi, lib
from multikernel.shm.pages import MachinePage
page = MachinePage.create("demo")
records = []
for number in (1, 2):
    record = ffi.new("struct mk_instance_record *", {"used": 1, "id": 1, "name": b"web", "cmdline": b"%d" % number})
    record.epoch = record.memory = record.state_time = number
    record.console_tail = b"%d" % number * 511
    records.append(record)
map = page._open()  # no Python between two writes: most of the time it is in the middle of one
lib.mk_py_write_instance(map, 1, records[0])
socket.send_fds(parent, [b"x"], [page.fd])
while True:
    for record in records:
        lib.mk_py_write_instance(map, 1, record)
"""


def is_whole(record: InstanceRecord) -> bool:
    number = record.epoch
    return (record.memory, record.state_time_ns, record.cmdline) == (number, number, str(number)) and (
        record.console_tail == str(number) * 511
    )


def stopped_in_the_middle(process: subprocess.Popen[bytes], view: MachineView) -> InstanceRecord:
    """Stop the writer again and again, until it is in the middle of a change. Most of its time it is."""
    for _ in range(2000):
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        record = view.instance(1)
        assert record is not None
        if record.torn:
            return record
        process.send_signal(signal.SIGCONT)
        while view.instance(1) == record:  # until it runs again
            assert process.poll() is None
    raise AssertionError("the writer was never met in the middle")


def test_a_record_is_whole_however_fast_it_changes(undo):
    with child(TWO_RECORDS_FOR_EVER) as (_, fd):
        view = MachineView(fd)
        undo.callback(view.close)
        seen = set()
        for _ in range(20_000):
            record = view.instance(1)
            assert record is not None
            assert is_whole(record), record
            seen.add(record.epoch)
        assert seen >= {1, 2}


def test_a_host_killed_in_the_middle_of_a_change_leaves_the_record_before_it(undo):
    with child(TWO_RECORDS_FOR_EVER) as (process, fd):
        view = MachineView(fd)
        undo.callback(view.close)
        before = stopped_in_the_middle(process, view)
        assert is_whole(before), before
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert view.instance(1) == before
        assert view.instances() == [before]


# --- the status page


def test_a_new_status_page_says_whose_it_is_and_that_it_was_spawned(status_view):
    now = status_view.read()
    assert (now.id, now.epoch, now.pid, now.phase) == (7, 3, os.getpid(), "spawned")
    assert list(now.phase_times_ns) == ["spawned"]
    assert now.counters == Counters()
    assert not any(now.ipi)
    assert now.links == ()


def test_each_phase_is_kept_with_its_time(status, status_view):
    for phase in PHASES:
        status.phase(phase)
    now = status_view.read()
    assert now.phase == PHASES[-1]
    times = list(now.phase_times_ns.values())
    assert list(now.phase_times_ns) == list(PHASES)
    assert times == sorted(times)


def test_a_page_says_whether_an_event_loop_runs(status, status_view):
    assert not status_view.read().awake
    status.awake(True)
    assert status_view.read().awake
    status.awake(False)
    assert not status_view.read().awake


def test_a_beat_moves_the_heartbeat_and_says_the_cpu(status, status_view):
    before = status_view.read()
    status.beat()
    after = status_view.read()
    assert after.heartbeat_ns > before.heartbeat_ns
    assert after.cpu in os.sched_getaffinity(0)


def test_ipis_are_counted_by_vector_and_impossible_vectors_are_not(status, status_view):
    status.ipi(0, 1)
    status.ipi(63, 2**40)
    status.ipi(63, 1)
    status.ipi(64, 5)
    counts = status_view.read().ipi
    assert counts[0] == 1
    assert counts[63] == 2**40 + 1
    assert sum(counts) == 2**40 + 2


def count(counters, **amounts: int) -> None:
    """Count as a lane's end does."""
    words = ffi.cast("uint64_t *", counters)
    for name, amount in amounts.items():
        words[list(Counters.__dataclass_fields__).index(name)] += amount


def test_links_are_counted_apart_and_together(status, status_view):
    first, second = status.link(2, 65536), status.link(512, 4096)
    count(first, sent=3, sent_bytes=30, stalls=1)
    count(second, received=4, sent=1)
    now = status_view.read()
    assert [(link.peer, link.capacity) for link in now.links] == [(2, 65536), (512, 4096)]
    assert now.links[0].counters == Counters(sent=3, sent_bytes=30, stalls=1)
    assert now.links[1].counters == Counters(received=4, sent=1)
    assert now.counters == Counters(sent=4, sent_bytes=30, received=4, stalls=1)


def test_what_a_closed_link_counted_stays_in_the_sum_and_its_row_is_free(status, status_view):
    row = status.link(2, 65536)
    count(row, sent=3, parks=2)
    status.unlink(row)
    status.link(9, 4096)
    now = status_view.read()
    assert [(link.peer, link.counters) for link in now.links] == [(9, Counters())]
    assert now.counters == Counters(sent=3, parks=2)


def test_links_beyond_the_table_are_counted_in_the_sum(status, status_view):
    rows = [status.link(peer, 4096) for peer in range(1, 63)]
    for row in rows:
        count(row, received=1)
    now = status_view.read()
    assert len(now.links) == 60
    assert now.counters.received == 62
    for row in rows:
        status.unlink(row)
    assert status_view.read().counters.received == 62
