"""What a process may do to another of the same user: one that is closed up as an instance is, and one that is not.

Root may look into any process, so under root the processes of this test become another user first.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest
from cffi import FFI

from multikernel.kernel import process

if TYPE_CHECKING:
    from collections.abc import Callable

NOBODY = 65534
REFUSED = (errno.EPERM, errno.EACCES)
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
PIDFD_GETFD = 438  # on every architecture

ffi = FFI()
ffi.cdef("""
    struct iovec { void *base; size_t length; };
    long process_vm_writev(int pid, const struct iovec *local, unsigned long locals, const struct iovec *remote,
                           unsigned long remotes, unsigned long flags);
    long ptrace(int request, int pid, void *address, void *data);
    long syscall(long number, ...);
""")
libc = ffi.dlopen(None)


def result(value: int) -> int:
    """0, or the errno of a call that failed."""
    return ffi.errno if value < 0 else 0


def write_memory(pid: int, address: int) -> int:
    evil = ffi.new("char[]", b"evil")
    local = ffi.new("struct iovec *", {"base": evil, "length": 4})
    remote = ffi.new("struct iovec *", {"base": ffi.cast("void *", address), "length": 4})
    return result(libc.process_vm_writev(pid, local, 1, remote, 1, 0))


def write_file_of_memory(pid: int, address: int) -> int:
    fd = os.open(f"/proc/{pid}/mem", os.O_WRONLY)
    try:
        os.pwrite(fd, b"evil", address)
    finally:
        os.close(fd)
    return 0


def list_descriptors(pid: int, _address: int) -> int:
    os.listdir(f"/proc/{pid}/fd")
    return 0


def open_descriptor(pid: int, _address: int) -> int:
    os.close(os.open(f"/proc/{pid}/fd/0", os.O_RDONLY))
    return 0


def take_descriptor(pid: int, _address: int) -> int:
    pidfd = os.pidfd_open(pid)
    try:
        return result(libc.syscall(PIDFD_GETFD, ffi.cast("int", pidfd), ffi.cast("int", 0), ffi.cast("int", 0)))
    finally:
        os.close(pidfd)


def attach(pid: int, _address: int) -> int:
    refused = result(libc.ptrace(PTRACE_ATTACH, pid, ffi.NULL, ffi.NULL))
    if not refused:
        os.waitpid(pid, os.WUNTRACED)
        libc.ptrace(PTRACE_DETACH, pid, ffi.NULL, ffi.NULL)
    return refused


ATTACKS = (write_memory, write_file_of_memory, list_descriptors, open_descriptor, take_descriptor, attach)


def child(work: Callable[[], int]) -> int:
    """A forked child, of an ordinary user. It ends with what `work` returns."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            signal.alarm(30)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            status = work()
        finally:
            os._exit(status)
    return pid


def outcome_of(attack: Callable[[int, int], int], *, closed: bool) -> int:
    """What an attack on a process comes to: 0, or the errno by which it was refused."""
    secret = ffi.new("char[]", b"good")
    address = int(ffi.cast("uintptr_t", secret))
    ready, go = os.pipe(), os.pipe()

    def victim() -> int:
        process.stay_dumpable()  # which a change of user takes away
        if closed:
            process.close_up()
        os.close(go[1])
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        return int(ffi.string(secret) != b"good")

    def attacker() -> int:
        os.read(ready[0], 1)
        try:
            return attack(of, address)
        except OSError as error:
            return error.errno or 98

    of = child(victim)
    by = child(attacker)
    os.close(go[0])
    refused = os.waitstatus_to_exitcode(os.waitpid(by, 0)[1])
    for fd in (*ready, go[1]):
        os.close(fd)
    touched = os.waitstatus_to_exitcode(os.waitpid(of, 0)[1])
    assert touched == (1 if not refused and attack in (write_memory, write_file_of_memory) else 0)
    return refused


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_process_that_is_closed_up_cannot_be_looked_into_or_written(attack):
    """And one that is not can be: it is not something else that keeps the attacker out."""
    assert outcome_of(attack, closed=True) in REFUSED
    if not restricted():
        assert outcome_of(attack, closed=False) == 0


def restricted() -> bool:
    """Whether this system keeps all but parents out of any process."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope") as scope:
            return scope.read() != "0\n"
    except OSError:
        return False
