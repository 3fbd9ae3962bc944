"""What the library asks of a system, one entry a facility: how it is tried, what its lack costs, what to do.

The probes that lie here are about processes and cpus; those about memory are in `memory_facilities`, those about
what keeps instances apart in `isolation_facilities`. Each runs in a child of its own (see `attempt`), makes the call
itself, and infers nothing from a version.
"""

from __future__ import annotations

import os
import resource
import select
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .attempt import Answer, Status, call, checked, error_name


@dataclass(frozen=True)
class Facility:
    """One thing that a system may have, have in part, or lack."""

    name: str  # stable: programs look for it
    tried: str  # what the probe does, in a line
    probe: Callable[[], Answer]
    cost: str  # what is lost without it
    remedy: str  # what to do about it
    needed: bool = False  # the library cannot do without
    seconds: float = 5.0  # that the probe gets
    undo: Callable[[int], None] | None = None  # after the probe, whatever became of it; gets the pid it had


def core() -> Answer:
    """The C core can be loaded."""
    from multikernel._core import lib

    return Answer(Status.OK, f"loaded, ABI version {lib.MK_ABI_VERSION}")


def pidfd() -> Answer:
    """A process can be held by descriptor, which says when it has ended."""
    wake, hold = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hold)
        os.read(wake, 1)  # ends when the parent closes its side
        os._exit(0)
    try:
        with call("pidfd_open"):
            descriptor = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        early = bool(poll.poll(0))
    finally:
        os.close(hold)
    with call("poll"):
        ended = bool(poll.poll(2000))
    os.waitpid(pid, 0)
    if early or not ended:
        return Answer(Status.MISSING, "opened, but it does not say when its process ends")
    return Answer(Status.OK, "opened, and it said when the process ended")


def parent_death() -> Answer:
    """A child can ask to be killed when its parent ends."""
    from multikernel._core import lib

    checked("prctl(PR_SET_PDEATHSIG)", lib.mk_process_die_with(os.getppid()))
    return Answer(Status.OK, "taken")


def sockets() -> Answer:
    """A host can listen where run directories are, and descriptors and credentials travel."""
    directory = _socket_directory(os.getpid())
    with call(f"mkdir {directory}"):
        directory.mkdir(mode=0o700)
    inside = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    path = f"/proc/self/fd/{inside}/control"  # the address of a socket ends at 108 bytes
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with call(f"bind in {directory}"):
        listener.bind(path)
    listener.listen(1)
    with call("connect"):
        client.connect(path)
    server, _ = listener.accept()
    with call("getsockopt(SO_PEERCRED)"):
        server.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    with call("sendmsg(SCM_RIGHTS)"):
        socket.send_fds(server, [b"x"], [server.fileno()])
        _, received, _, _ = socket.recv_fds(client, 1, 1)
    if not received:
        return Answer(Status.MISSING, "a descriptor was sent and did not arrive")
    return Answer(Status.OK, f"a socket in {directory.parent} was reached, a descriptor arrived")


def _socket_directory(pid: int) -> Path:
    """A directory for a try, beside the run directories or where they will be."""
    where = Path(os.environ.get("MULTIKERNEL_RUN") or os.environ.get("XDG_RUNTIME_DIR") or "/tmp")
    return (where if where.is_dir() else where.parent) / f"multikernel-doctor-{pid}"


def remove_socket_directory(pid: int) -> None:
    """Remove what the probe of sockets made."""
    shutil.rmtree(_socket_directory(pid), ignore_errors=True)


def cpus() -> Answer:
    """Processes can be pinned, and run where they were pinned to."""
    from multikernel._core import lib
    from multikernel.units import format_cpus

    allowed = sorted(os.sched_getaffinity(0))
    for cpu in allowed:
        with call(f"sched_setaffinity to cpu {cpu}"):
            os.sched_setaffinity(0, {cpu})
        ran = checked("getcpu", lib.mk_process_cpu())
        if ran != cpu:
            return Answer(Status.MISSING, f"pinned to cpu {cpu}, and ran on cpu {ran}")
    text = f"{len(allowed)} of {os.cpu_count()} allowed ({format_cpus(allowed)}), pinned to each and ran there"
    return Answer(Status.OK if len(allowed) > 1 else Status.LIMITED, text)


def isolated_cpus() -> Answer:
    """Some cpus are kept free of other work. What the kernel was booted with; there is no call to try."""
    found = []
    for name in ("isolated", "nohz_full"):
        try:
            listed = Path("/sys/devices/system/cpu", name).read_text().strip()
        except OSError as error:
            found.append(f"{name}: {error_name(error.errno)}")
            continue
        found.append(f"{name}: {listed if listed and listed != '(null)' else 'none'}")
    isolated = found[0].removeprefix("isolated: ")
    return Answer(Status.OK if isolated[:1].isdigit() else Status.MISSING, ", ".join(found))


def realtime() -> Answer:
    """A process may have a real-time priority."""
    limit, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
    shown = "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
    lowest, highest = os.sched_get_priority_min(os.SCHED_FIFO), os.sched_get_priority_max(os.SCHED_FIFO)
    with call(f"sched_setscheduler(SCHED_FIFO, {lowest}), with RLIMIT_RTPRIO {shown}"):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(lowest))
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(highest))
    except OSError as error:
        text = f"priority {lowest} taken, priority {highest}: {error_name(error.errno)}, RLIMIT_RTPRIO {shown}"
        return Answer(Status.LIMITED, text)
    return Answer(Status.OK, f"priorities {lowest} and {highest} taken, RLIMIT_RTPRIO {shown}")


def perf() -> Answer:
    """Cycles can be counted."""
    from multikernel._core import lib

    checked("perf_event_open(cycles)", lib.mk_probe_perf())
    return Answer(Status.OK, "counted cycles in user mode")


PROCESS_FACILITIES = (
    Facility(
        "core",
        "load the C core",
        core,
        cost="nothing works without it",
        remedy="install the package again where a C compiler is; `import multikernel._core` says what is wrong",
        needed=True,
    ),
    Facility(
        "pidfd",
        "hold a child by pidfd_open, and see it end",
        pidfd,
        cost="the death of a peer or of a host would go unnoticed",
        remedy="Linux 5.3 or newer has it; a seccomp filter (an old container runtime) may refuse it",
        needed=True,
    ),
    Facility(
        "parent_death",
        "ask for a signal at the parent's death (prctl)",
        parent_death,
        cost="instances could outlive their host",
        remedy="a seccomp filter refuses it: allow prctl",
        needed=True,
    ),
    Facility(
        "sockets",
        "listen in the run directory, pass a descriptor and credentials",
        sockets,
        cost="no machine can be made; rings work without",
        remedy="set MULTIKERNEL_RUN to a directory of your own with mode 0700 where sockets can be made",
        needed=True,
        undo=remove_socket_directory,
    ),
    Facility(
        "cpus",
        "pin a process to each allowed cpu, and ask where it runs",
        cpus,
        cost="instances share one core, or cannot be kept on theirs: they take turns instead of running side by side",
        remedy="allow more cpus (taskset, cpuset, the container's --cpuset-cpus)",
        needed=True,
    ),
    Facility(
        "isolated_cpus",
        "read what the kernel was booted with",
        isolated_cpus,
        cost="other programs and interrupts may use an instance's core: its worst latencies grow, its throughput "
        "hardly suffers",
        remedy="boot with isolcpus=managed_irq,domain,CPUS nohz_full=CPUS, where jitter matters",
    ),
    Facility(
        "realtime",
        "take the lowest and the highest SCHED_FIFO priority",
        realtime,
        cost="no instance can have a real-time priority: whatever runs on its core delays it",
        remedy="set `rtprio 99` in /etc/security/limits.conf, or give CAP_SYS_NICE",
    ),
    Facility(
        "perf",
        "count cycles with perf_event_open",
        perf,
        cost="benches report times, and no cycle counts",
        remedy="sysctl kernel.perf_event_paranoid=2; a virtual machine may have no counters to give",
    ),
)
