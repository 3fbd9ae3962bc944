"""Run directories: which machines there are, and who may use a machine's name.

    BASE/                 0700, one for each user
      NAME/               0700, one for each running machine; flock(2)ed by its host
        control           the socket of its host
        host.log          what the host and its zygote have to say

The lock decides and nothing else does: a directory whose lock is held is a running machine, one whose lock is
free is what a killed host left behind, and whoever takes that lock removes it. No pid is asked, so none can be
mistaken for another's. The kernel gives the lock up with the last copy of its descriptor. Only the files above are
ever removed: a base that was set to somebody's home directory by mistake costs nobody his files.

The lock is on the directory itself, not on a file in it. So there is no state of "made, but its lock file is not
there yet", and systemd-tmpfiles, which clears old files out of /tmp, leaves a directory alone that carries one:
with a lock file it would delete that file after some days, and the machine would look dead.

A lock counts only if the path still leads to the directory that was locked; its last owner may just have removed
it, and somebody else made a new one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from pathlib import Path

from multikernel.errors import MultikernelError, ResourceError
from multikernel.resources.names import check_name

CONTENTS = ("control", "host.log")
"""All that a run directory may hold."""

_PATIENCE = 0.25  # seconds; who only looks, or clears up, holds a lock for some microseconds
_PAUSE = 0.002  # seconds between two tries for a lock


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
            _clear(self.path, lock)
            os.fchmod(lock, 0o700)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def remove(self) -> None:
        """Remove the directory with what is in it, and give up its lock.

        For the host at its end, and for the zygote after the host's. Does nothing if it is gone already, or if the
        name belongs to another machine by now.

        Raises:
            MultikernelError: there are files in it that are not ours. Nothing was removed.
        """
        lock, self._lock = self._lock, None
        try:
            if lock is None:
                lock = _take(self.path)
            _erase(self.path, lock)
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
        deadline = time.monotonic() + _PATIENCE
        while True:
            late = time.monotonic() >= deadline
            try:
                with contextlib.suppress(FileExistsError):
                    self.path.mkdir(mode=0o700)
                return _take(self.path)
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
            time.sleep(_PAUSE)  # noqa: TID251 - nothing tells when a lock is free; bounded by the deadline

    def _taken(self) -> ResourceError:
        return ResourceError(
            f"a machine named {self.name!r} is running already. Attach to it with Machine.attach({self.name!r}), "
            f"end it with `multikernel shutdown -M {self.name}`, or take another name.",
            name=self.name,
        )


def is_running(name: str) -> bool:
    """Whether the machine `name` has a host, or a zygote that has not yet cleared up after one. Changes nothing.

    Raises:
        ResourceError: the name breaks the rule for names.
    """
    try:
        # Shared, so that any number may look at once.
        os.close(_take(RunDir(name).path, fcntl.LOCK_SH))
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        pass
    return False


def running() -> list[str]:
    """The names of all machines of this user that run, sorted. Removes what killed hosts left behind."""
    directory = base()
    names = []
    for name in sorted(os.listdir(directory)):
        try:
            lock = _take(directory / name)
        except BlockingIOError:
            names.append(name)
            continue
        except OSError:  # no directory, or none that we may open: no machine
            continue
        # What cannot be removed is no reason not to list the others; `claim` says what is wrong with it.
        with contextlib.suppress(OSError, MultikernelError):
            _erase(directory / name, lock)
        os.close(lock)
    return names


def _take(path: Path, how: int = fcntl.LOCK_EX) -> int:
    """Open the directory `path` and lock it; the descriptor is the lock.

    Raises:
        BlockingIOError: somebody holds it.
        FileNotFoundError: it is not there, or no longer.
        NotADirectoryError: something else is there.
    """
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
        _check_same(path, lock)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _check_same(path: Path, lock: int) -> None:
    if not os.path.samestat(os.lstat(path), os.fstat(lock)):
        raise FileNotFoundError(errno.ENOENT, "removed and made anew", str(path))


def _erase(path: Path, lock: int) -> None:
    """Remove the directory `path`, locked by `lock`; FileNotFoundError if another is at its place."""
    _check_same(path, lock)  # a forked copy of this lock may have removed it, and the name be somebody else's now
    _clear(path, lock)
    path.rmdir()


def _clear(path: Path, lock: int) -> None:
    """Remove our files, by the descriptor: never those in another directory that has come to be at `path`."""
    strange = sorted(set(os.listdir(lock)).difference(CONTENTS))
    if strange:
        raise MultikernelError(
            f"{path} holds what is not multikernel's: {', '.join(strange)}. "
            "Remove it, or set MULTIKERNEL_RUN to another directory.",
            path=str(path),
            strange=tuple(strange),
        )
    for name in CONTENTS:
        with contextlib.suppress(FileNotFoundError):  # a forked copy of the lock clears up at the same time
            os.unlink(name, dir_fd=lock)


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
