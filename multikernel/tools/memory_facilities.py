"""The facilities that lanes rest on: sealed memory, futexes, barriers, and how memory is locked and paged."""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import resource
import shutil
from pathlib import Path

from .attempt import Answer, Refused, Status, call, checked, error_name
from .facilities import Facility

_F_SEAL_FUTURE_WRITE = 0x0010  # linux/fcntl.h; Python's fcntl has no name for it
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL
_GENEROUS_LOCK = 64 << 20  # bytes; a few instances with lanes and named memory


def seals() -> Answer:
    """Memory can be sealed so that only its owner's mapping writes it."""
    size = mmap.PAGESIZE
    with call("memfd_create"):
        fd = os.memfd_create("lane:doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with call("fallocate"):
        os.posix_fallocate(fd, 0, size)
    owner = mmap.mmap(fd, size)
    with call("fcntl(F_ADD_SEALS, F_SEAL_FUTURE_WRITE)"):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    with call("open(/proc/self/fd/N, O_RDONLY)"):
        read_only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    os.close(fd)
    owner[:5] = b"owner"
    if os.pread(read_only, 5, 0) != b"owner":
        return Answer(Status.MISSING, "what the owner wrote after the seal does not arrive")
    refusals = {_write_refused(read_only), _map_refused(read_only)}
    if "" in refusals:
        return Answer(Status.MISSING, "sealed, and a read-only descriptor was reopened and written all the same")
    return Answer(Status.OK, f"the owner goes on writing; reopened for writing: {' and '.join(sorted(refusals))}")


def _write_refused(read_only: int) -> str:
    """Reopen for writing and write; the errno's name, or "" if nothing stopped it."""
    try:
        again = os.open(f"/proc/self/fd/{read_only}", os.O_RDWR | os.O_CLOEXEC)
        os.pwrite(again, b"stray", 0)
    except OSError as error:
        return error_name(error.errno)
    return ""


def _map_refused(read_only: int) -> str:
    """Reopen for writing, map and write; the errno's name, or "" if nothing stopped it."""
    try:
        again = os.open(f"/proc/self/fd/{read_only}", os.O_RDWR | os.O_CLOEXEC)
        mmap.mmap(again, mmap.PAGESIZE)[:5] = b"stray"
    except OSError as error:
        return error_name(error.errno)
    return ""


def futex() -> Answer:
    """A process can sleep on a word of a page that it may only read."""
    from multikernel._core import lib

    checked("futex(FUTEX_WAIT) through a read-only map", lib.mk_probe_futex())
    return Answer(Status.OK, "slept on a read-only page, and woke in time")


def futex_waitv() -> Answer:
    """A process can sleep on two such words at once."""
    from multikernel._core import lib

    checked("futex_waitv", lib.mk_probe_futex_waitv())
    return Answer(Status.OK, "slept on two words, and woke in time")


def membarrier() -> Answer:
    """One process can make others pass a fence."""
    from multikernel._core import lib

    checked("membarrier(GLOBAL_EXPEDITED)", lib.mk_probe_membarrier())
    return Answer(Status.OK, "registered, and the barrier was passed")


def mlock() -> Answer:
    """Memory can be locked, and how much."""
    from multikernel._core import lib
    from multikernel.units import format_size

    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    shown = "unlimited" if limit == resource.RLIM_INFINITY else format_size(limit)
    checked(f"mlock of a page, with RLIMIT_MEMLOCK {shown}", lib.mk_probe_mlock())
    enough = limit == resource.RLIM_INFINITY or limit >= _GENEROUS_LOCK
    return Answer(Status.OK if enough else Status.LIMITED, f"a page was locked; RLIMIT_MEMLOCK {shown}")


def _huge_page() -> int:
    """The default size of a huge page, bytes."""
    found = re.search(r"^Hugepagesize:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    if not found:
        raise Refused("/proc/meminfo names no Hugepagesize")
    return int(found[1]) * 1024


def hugetlb() -> Answer:
    """A memory object can be made of reserved huge pages."""
    from multikernel.units import format_size

    size = _huge_page()
    with call("memfd_create(MFD_HUGETLB)"):
        fd = os.memfd_create("lane:doctor", os.MFD_CLOEXEC | os.MFD_HUGETLB)
    with call(f"fallocate of one page of {format_size(size)}"):
        os.posix_fallocate(fd, 0, size)
    return Answer(Status.OK, f"one page of {format_size(size)} was allocated")


def transparent_huge_pages() -> Answer:
    """A memory object gets huge pages when it asks for them."""
    from multikernel.units import format_size

    huge = _huge_page()
    fd = os.memfd_create("lane:doctor", os.MFD_CLOEXEC)
    os.ftruncate(fd, 2 * huge)
    area = mmap.mmap(fd, 2 * huge)
    with call("madvise(MADV_HUGEPAGE)"):
        area.madvise(mmap.MADV_HUGEPAGE)
    area[::huge] = b"xx"
    mapped = sum(int(kib) for kib in re.findall(r"ShmemPmdMapped:\s+(\d+) kB", Path("/proc/self/smaps").read_text()))
    text = f"{format_size(mapped * 1024)} of {format_size(2 * huge)} came as huge pages"
    return Answer(Status.OK if mapped else Status.MISSING, text)


def execution() -> Answer:
    """A sealed copy of a program can be executed."""
    from multikernel.image import sealed

    program = shutil.which("true")
    if program is None:
        return Answer(Status.LIMITED, "there is no program `true` to try it with")
    with call("memfd_create(MFD_EXEC), F_ADD_SEALS"):
        copy = sealed.seal(Path(program).read_bytes(), "image:doctor", executable=True)
    pid = os.fork()
    if pid == 0:
        try:
            os.execve(copy, ["true"], {})
        except OSError as error:
            os._exit(error.errno or 1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        return Answer(Status.MISSING, f"execveat of a sealed memory object: {error_name(status)}")
    return Answer(Status.OK, f"a sealed copy of {program} ran")


MEMORY_FACILITIES = (
    Facility(
        "seals",
        "seal a memfd (F_SEAL_FUTURE_WRITE), write as its owner, reopen a read-only descriptor for writing",
        seals,
        cost="nothing would keep one instance from writing another's pages, so no lane is made",
        remedy="Linux 5.1 or newer has it; a seccomp filter or a very old container runtime may refuse it; /proc must "
        "be mounted",
        needed=True,
    ),
    Facility(
        "execution",
        "seal a program in a memfd, and execute it",
        execution,
        cost="no native image boots; those of Python do",
        remedy="sysctl vm.memfd_noexec=0 or 1, as root",
    ),
    Facility(
        "futex",
        "sleep on a word of a sealed page, mapped read-only",
        futex,
        cost="a receiver could only spin",
        remedy="a seccomp filter refuses it: allow futex",
        needed=True,
    ),
    Facility(
        "futex_waitv",
        "sleep on two words at once",
        futex_waitv,
        cost="whoever waits for two lanes at once sleeps in poll instead, and wakes some microseconds later",
        remedy="Linux 5.16 or newer has it; an older seccomp profile (of a container) may not know it",
    ),
    Facility(
        "membarrier",
        "register for the global expedited barrier, and issue one",
        membarrier,
        cost="senders pass a fence with every message, and a long sleep is cut into slices of 10 ms",
        remedy="Linux 4.16 or newer has it; a seccomp filter may refuse it: allow membarrier",
    ),
    Facility(
        "mlock",
        "lock a page, and read the limit",
        mlock,
        cost="an instance can lock no more than this: page faults can delay a real-time one",
        remedy="set `memlock unlimited` in /etc/security/limits.conf, or `ulimit -l`",
    ),
    Facility(
        "hugetlb",
        "allocate one reserved huge page (memfd with MFD_HUGETLB)",
        hugetlb,
        cost="large rings and named memory use ordinary pages: more TLB misses",
        remedy="sysctl vm.nr_hugepages=N reserves some, as root",
    ),
    Facility(
        "thp",
        "ask for transparent huge pages in a memfd, and look which came",
        transparent_huge_pages,
        cost="large rings and named memory use ordinary pages: more TLB misses",
        remedy="echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled, as root",
    ),
)
