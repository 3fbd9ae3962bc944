"""The control socket of a host: where it listens, and how one gets through to it."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

from multikernel.errors import MultikernelError, NotFound, Timeout
from multikernel.host.rundir import RunDir, has_host, lives_without_host, running
from multikernel.shm.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BACKLOG = 128
"""Most connections that wait for the host to accept them."""

_LONGEST_ADDRESS = 107  # bytes; sun_path of struct sockaddr_un is 108, with its NUL
_PAUSE = 0.005  # seconds between two tries to connect: a host that is just starting cannot be waited for


class Hostless(MultikernelError):
    """The machine's instances live, and its host and zygote were killed: the next client starts a host."""


def listen(rundir: RunDir) -> socket.socket:
    """Bind the control socket of a claimed run directory and listen on it.

    Returns:
        A non-blocking, close-on-exec AF_UNIX SOCK_SEQPACKET socket, for the caller to accept from; `Channel(sock)`
        of what it accepts. The directory keeps other users out; the caller checks `Channel.peer()` all the same.

    Raises:
        OSError: the run directory is not there, or somebody listens already (EADDRINUSE).
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        os.fchmod(sock.fileno(), 0o600)  # bind makes the file with the mode of the socket, so it never has another
        with _address(rundir.socket_path) as address:
            sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def connect(rundir: RunDir, *, timeout: float = 5.0) -> Channel:
    """Connect to the host that holds `rundir`.

    Waits for one that has claimed the name and does not listen yet, or has too many connections to accept. That the
    host answers is not said: a stopped one is connected to by the kernel.

    Args:
        rundir: of the machine to connect to; need not be claimed here.
        timeout: seconds to go on trying while the machine is there, >= 0.

    Raises:
        NotFound: no machine of that name is running.
        Hostless: it has no host, and nobody who is about to start one.
        Timeout: its host has not let us in within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            with _address(rundir.socket_path) as address:
                sock.connect(address)
            return Channel(sock)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError) as error:
            sock.close()
            if not has_host(rundir.name):
                if lives_without_host(rundir.name):
                    raise Hostless(
                        f"machine {rundir.name!r} has lost its host, and its instances go on. Machine.attach, or any "
                        "command, starts another.",
                        name=rundir.name,
                    ) from error
                raise _not_found(rundir.name) from error
            if time.monotonic() >= deadline:
                raise Timeout(
                    f"machine {rundir.name!r} is there, but its host does not accept a connection "
                    f"within {timeout:g} s; {rundir.log_path} may say why",
                    name=rundir.name,
                    timeout=timeout,
                ) from error
            time.sleep(_PAUSE)  # noqa: TID251 - nothing tells when a host listens; bounded by the deadline
        except BaseException:
            sock.close()
            raise


def _not_found(name: str) -> NotFound:
    names = tuple(running())
    return NotFound(
        f"no machine named {name!r} is running; {', '.join(map(repr, names)) or 'none'} "
        f"{'are' if len(names) > 1 else 'is'}. Start one with Machine(name={name!r}) or `multikernel init -M {name}`.",
        name=name,
        running=names,
    )


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """`path` as an address that fits: the long way round through a descriptor of its directory, if need be."""
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
