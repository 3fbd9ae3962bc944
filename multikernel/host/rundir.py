"""Run directories: which machines there are, and who may use a machine's name.

    BASE/                 0700, one for each user
      NAME/               0700, one for each running machine; flock(2)ed by its host
        control           the socket of its host
        host.log          what the host and its zygote have to say
        machine           of a persistent machine: what a new host has to know (`multikernel.host.ledger`)
        instances/        likewise, a file for each instance; flock(2)ed, shared, by every one that runs

The lock decides and nothing else does: a directory whose lock is held is a running machine, one whose lock is
free is what a killed host left behind, and whoever takes that lock removes it. No pid is asked, so none can be
mistaken for another's. The kernel gives the lock up with the last copy of its descriptor. Only the files above are
ever removed: a base that was set to somebody's home directory by mistake costs nobody his files.

Instances of a persistent machine outlive a killed host. Then the lock of the machine is free, and that of `instances`
tells that they live: the name stays taken, and a new host takes over (`RunDir.take_over`).

The lock is on the directory itself, not on a file in it. So there is no state of "made, but its lock file is not
there yet", and systemd-tmpfiles, which clears old files out of /tmp, leaves a directory alone that carries one:
with a lock file it would delete that file after some days, and the machine would look dead.

A lock counts only if the path still leads to the directory that was locked; its last owner may just have removed
it, and somebody else made a new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path

from multikernel.errors import MultikernelError, NotFound, ResourceError
from multikernel.host.rundir_files import (
    CONTENTS,
    INSTANCES,
    PATIENCE,
    PAUSE,
    clear,
    erase,
    lives,
    take,
    take_patiently,
)
from multikernel.resources.names import check_name


def base() -> Path:
    """The directory that holds this user's run directories, made if it is missing.

    `$MULTIKERNEL_RUN` if set; else `$XDG_RUNTIME_DIR/multikernel`, if that variable names a directory of ours; else
    `/tmp/multikernel-UID`. It stays when the last machine is gone.

    Raises:
        MultikernelError: it cannot be made, or is not a directory (a symbolic link is not) that is ours and closed
            to all others: sockets in it would be within their reach.
    """
    override = os.environ.get("MULTIKERNEL_RUN")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if override:
        path = Path(override).absolute()
    elif runtime and _is_ours(runtime):
        path = Path(runtime).absolute() / "multikernel"
    else:
        path = Path(f"/tmp/multikernel-{os.geteuid()}")
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = os.lstat(path)
    except OSError as error:
        raise MultikernelError(
            f"cannot make the run directory {path}: {error.strerror}. "
            "Set MULTIKERNEL_RUN to a directory of your own with mode 0700.",
            path=str(path),
        ) from error
    problem = _why_not_private(found)
    if problem:
        raise MultikernelError(
            f"the run directory {path} cannot be trusted: it {problem}. "
            "Remove it, or set MULTIKERNEL_RUN to a directory of your own with mode 0700.",
            path=str(path),
        )
    return path


class RunDir:
    """The run directory of the machine `name`, which may or may not exist.

    Making the object changes nothing; `claim` makes the directory and holds it. The lock is shared with forked
    copies of this process: the directory is free again when all of them have closed it, or ended. A child that is
    not to keep the name taken calls `close`.

    Raises:
        ResourceError: the name breaks the rule for names.
        MultikernelError: see `base`.
    """

    def __init__(self, name: str) -> None:
        check_name(name)
        self.name = name
        self.path = base() / name
        self._lock: int | None = None

    @property
    def socket_path(self) -> Path:
        """Where the host listens; see `multikernel.host.address`."""
        return self.path / CONTENTS[0]

    @property
    def log_path(self) -> Path:
        """Where the host and its zygote write what they have to say."""
        return self.path / CONTENTS[1]

    def claim(self) -> None:
        """Make the directory, empty and with mode 0700, and hold its lock until `remove` or `close`.

        What a killed host left there is removed. Does nothing if this object holds it already.

        Raises:
            ResourceError: a machine of that name is running.
            MultikernelError: something else is in the way: not a directory, or one with files that are not ours.
        """
        if self._lock is not None:
            return
        lock = self._make_and_take()
        try:
            if lives(lock):
                raise self._taken()
            clear(self.path, lock)
            os.fchmod(lock, 0o700)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    @classmethod
    def inherit(cls, name: str, lock: int) -> RunDir:
        """The run directory of a machine whose lock this process was handed; the descriptor is the object's now."""
        rundir = cls(name)
        rundir._lock = lock
        return rundir

    def take_over(self) -> None:
        """Hold the lock of a machine whose host and zygote were killed, and whose instances live. Nothing is removed.

        Raises:
            ResourceError: it has a host; or another process is about to be that.
            NotFound: there is no such machine, or nothing of it lives.
        """
        try:
            lock = take_patiently(self.path)
        except BlockingIOError:
            raise self._taken() from None
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"no machine named {self.name!r} is there to be taken over", name=self.name) from None
        if not lives(lock):
            os.close(lock)
            raise NotFound(f"nothing of machine {self.name!r} lives that could be taken over", name=self.name)
        self._lock = lock

    @property
    def lock(self) -> int:
        """The descriptor of the directory that is its lock. AssertionError if this object does not hold it."""
        if self._lock is None:
            raise AssertionError(f"run directory {self.path} is not held")
        return self._lock

    def free_address(self) -> None:
        """Remove the socket of the last host, which was killed. The directory is held by this process."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(CONTENTS[0], dir_fd=self.lock)

    def hold_for_instances(self) -> int:
        """A descriptor of `instances`, made if it is missing, with a share of its lock: for each instance that runs.

        Every copy of the descriptor holds the share, until the last is closed.

        Raises:
            OSError: there is no descriptor, or no room for a directory.
        """
        with contextlib.suppress(FileExistsError):
            os.mkdir(INSTANCES, 0o700, dir_fd=self.lock)
        held = os.open(INSTANCES, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.lock)
        try:
            fcntl.flock(held, fcntl.LOCK_SH)  # only who holds the machine's lock ever tries for more, and that are we
        except BaseException:
            os.close(held)
            raise
        return held

    def remove(self) -> None:
        """Remove the directory with what is in it, and give up its lock.

        For the host at its end, and for the zygote after the host's. Does nothing if it is gone already, or if the
        name belongs to another machine by now; nor, for who does not hold the lock, while instances live.

        Raises:
            MultikernelError: there are files in it that are not ours. Nothing was removed.
        """
        lock, self._lock = self._lock, None
        try:
            if lock is None:
                lock = take(self.path)
                if lives(lock):
                    return
            erase(self.path, lock)
        except (BlockingIOError, FileNotFoundError, NotADirectoryError):
            pass
        finally:
            if lock is not None:
                os.close(lock)

    def close(self) -> None:
        """Let go of the lock, and leave the directory as it is. In a forked child: only the child's copy."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _make_and_take(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while True:
            late = time.monotonic() >= deadline
            try:
                with contextlib.suppress(FileExistsError):
                    self.path.mkdir(mode=0o700)
                return take(self.path)
            except BlockingIOError:  # held: for good, or for a moment by one who looks
                if late:
                    raise self._taken() from None
            except FileNotFoundError:  # one who clears up was quicker than we
                if late:
                    raise
            except NotADirectoryError as error:
                raise MultikernelError(
                    f"{self.path} is in the way of machine {self.name!r}: it is not a directory. Remove it.",
                    path=str(self.path),
                ) from error
            time.sleep(PAUSE)  # noqa: TID251 - nothing tells when a lock is free; bounded by the deadline

    def _taken(self) -> ResourceError:
        return ResourceError(
            f"a machine named {self.name!r} is running already. Attach to it with Machine.attach({self.name!r}), "
            f"end it with `multikernel shutdown -M {self.name}`, or take another name.",
            name=self.name,
        )


def is_running(name: str) -> bool:
    """Whether the machine `name` has a host, or a zygote that has not yet cleared up after one, or living instances.

    Changes nothing.

    Raises:
        ResourceError: the name breaks the rule for names.
    """
    return has_host(name) or lives_without_host(name)


def has_host(name: str) -> bool:
    """Whether the machine `name` has a host, or a zygote that is about to start one or to clear up. Changes nothing.

    Raises:
        ResourceError: the name breaks the rule for names.
    """
    try:
        # Shared, so that any number may look at once.
        os.close(take(RunDir(name).path, fcntl.LOCK_SH))
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        pass
    return False


def lives_without_host(name: str) -> bool:
    """Whether the machine `name` has lost its host and zygote, and has instances that live. Changes nothing.

    Raises:
        ResourceError: the name breaks the rule for names.
    """
    path = RunDir(name).path
    if not (path / INSTANCES).is_dir():
        return False
    try:
        lock = take_patiently(path)
    except (BlockingIOError, FileNotFoundError, NotADirectoryError):
        return False
    try:
        return lives(lock)
    finally:
        os.close(lock)


def running() -> list[str]:
    """The names of all machines of this user that run, sorted. Removes what killed hosts left behind."""
    directory = base()
    names = []
    for name in sorted(os.listdir(directory)):
        try:
            lock = take(directory / name)
        except BlockingIOError:
            names.append(name)
            continue
        except OSError:  # no directory, or none that we may open: no machine
            continue
        if lives(lock):
            names.append(name)
        else:
            # What cannot be removed is no reason not to list the others; `claim` says what is wrong with it.
            with contextlib.suppress(OSError, MultikernelError):
                erase(directory / name, lock)
        os.close(lock)
    return names


def _is_ours(path: str) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _why_not_private(found: os.stat_result) -> str | None:
    if not stat.S_ISDIR(found.st_mode):
        return "is not a directory"
    if found.st_uid != os.geteuid():
        return f"belongs to uid {found.st_uid}, not to us (uid {os.geteuid()})"
    if found.st_mode & 0o777 != 0o700:
        return f"has mode {found.st_mode & 0o777:04o}, not 0700"
    return None
