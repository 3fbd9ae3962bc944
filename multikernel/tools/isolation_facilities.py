"""The facilities that keep instances apart and within their budgets, and the mount of the machine's view."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from .attempt import Answer, Refused, Status, call, checked
from .facilities import Facility

_WANTED_CONTROLLERS = ("cpuset", "memory")
_LANDLOCK_SIGNALS = 6  # the ABI from which on a domain can be kept from signalling others


def private_memory() -> Answer:
    """A process can close its memory to others of the same user."""
    from multikernel._core import lib

    checked("prctl(PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS)", lib.mk_process_close_up())
    if os.geteuid() == 0:
        return Answer(Status.LIMITED, "taken, but this is root, and root may look into any process")
    return Answer(Status.OK, "taken")


def landlock() -> Answer:
    """A process can give up its access to files and to other processes."""
    from multikernel._core import lib

    abi = checked("landlock_create_ruleset", lib.mk_probe_landlock())
    return Answer(Status.OK if abi >= _LANDLOCK_SIGNALS else Status.LIMITED, f"ABI {abi}")


def user_namespaces() -> Answer:
    """An ordinary user can make namespaces, and use the rights they give."""
    from multikernel._core import lib

    checked("unshare(CLONE_NEWUSER)", lib.mk_probe_user_namespace())
    checked("entered one, but in it unshare(CLONE_NEWNS)", lib.mk_probe_mount_namespace())
    return Answer(Status.OK, "entered a user namespace, and in it a mount namespace")


def _own_group() -> tuple[Path, list[str]]:
    """The directory of this process's cgroup of version 2, and the controllers that version 1 has taken."""
    place, old = None, []
    with call("open(/proc/self/cgroup)"):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers:
            old += [name for name in controllers.split(",") if not name.startswith("name=")]
        else:
            place = path
    if place is None:
        raise Refused("only cgroups of version 1" if old else "no cgroups")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            _, _, _, root, mount, *_ = fields.split()
            return Path(mount, os.path.relpath(place, root)), old
    raise Refused("cgroups of version 2 are not mounted")


def cgroups() -> Answer:
    """Budgets of memory and cpus can be put on instances."""
    own, old = _own_group()
    mode = f"version 2 beside version 1 ({', '.join(sorted(old))})" if old else "version 2"
    group = own / f"multikernel-doctor-{os.getpid()}"
    with call(f"{mode}; mkdir in {own}"):
        group.mkdir()
    try:
        given = (group / "cgroup.controllers").read_text().split()
        with call(f"{mode}; moving a process into a group of {own}"):
            (group / "cgroup.procs").write_text("0")
            (own / "cgroup.procs").write_text("0")
    finally:
        group.rmdir()
    text = f"{mode}; made a group in {own}, moved a process, controllers in it: {' '.join(given) or 'none'}"
    complete = all(name in given for name in _WANTED_CONTROLLERS)
    return Answer(Status.OK if complete else Status.LIMITED, text)


def remove_group(pid: int) -> None:
    """Remove what a probe of cgroups left behind that was killed, or could not move back."""
    with contextlib.suppress(Refused, OSError):
        own, _ = _own_group()
        (own / f"multikernel-doctor-{pid}").rmdir()


def fuse() -> Answer:
    """The machine's view can be mounted."""
    with call("open(/dev/fuse)"):
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    helper = shutil.which("fusermount3")
    if helper is None:
        return Answer(Status.LIMITED, "/dev/fuse opened; fusermount3 is not installed")
    with call(f"running {helper}"):
        ran = subprocess.run([helper, "--version"], capture_output=True, timeout=2, check=False, text=True)
    if ran.returncode != 0:
        return Answer(Status.LIMITED, f"/dev/fuse opened; fusermount3 --version ended with {ran.returncode}")
    return Answer(Status.OK, f"/dev/fuse opened; {ran.stdout.strip()}")


ISOLATION_FACILITIES = (
    Facility(
        "private_memory",
        "close a process to others of the same user (PR_SET_DUMPABLE 0, PR_SET_NO_NEW_PRIVS)",
        private_memory,
        cost="one instance can read and write another's private memory on purpose; stray writes stay impossible",
        remedy="run machines as an ordinary user, not as root",
    ),
    Facility(
        "landlock",
        "ask for the Landlock ABI",
        landlock,
        cost="sandboxed instances keep more rights: files without Landlock, signals to others before ABI 6",
        remedy="Linux 6.12 or newer with landlock among the lsm= of its command line",
    ),
    Facility(
        "user_namespaces",
        "enter a user namespace, and in it a mount namespace",
        user_namespaces,
        cost="the strongest sandbox (namespaces of its own) is not to be had without root",
        remedy="sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1, or "
        "kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    Facility(
        "cgroups",
        "make a cgroup beside this process's own, move a process into it, look which controllers it has",
        cgroups,
        cost="memory budgets are kept by the library's own count, and cpus by affinity, which a process may change",
        remedy="run in a delegated cgroup of version 2: systemd-run --user --scope -p Delegate=yes",
        undo=remove_group,
    ),
    Facility(
        "fuse",
        "open /dev/fuse, run fusermount3",
        fuse,
        cost="the machine's view cannot be mounted as files; `ls`, `cat` and machine.proc work without",
        remedy="install fuse3; in a container give it the device (--device /dev/fuse)",
    ),
)
