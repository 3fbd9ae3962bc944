"""The control socket: for its owner only, found under any path, and clear about a host that is not there."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import time
from typing import TYPE_CHECKING

import pytest

from multikernel.errors import NotFound, Timeout
from multikernel.host.address import BACKLOG, connect, listen
from multikernel.host.rundir import RunDir
from multikernel.shm.channel import Channel
from tests.eventually import PATIENCE

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def rundir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDir]:
    monkeypatch.setenv("MULTIKERNEL_RUN", str(tmp_path / "run"))
    claimed = RunDir("web")
    claimed.claim()
    yield claimed
    claimed.remove()


def accept(listener: socket.socket) -> Channel:
    return Channel(listener.accept()[0])


def test_a_client_and_the_host_exchange_documents_and_know_each_other(rundir: RunDir) -> None:
    with listen(rundir) as listener, connect(rundir) as client, accept(listener) as server:
        client.send({"verb": "hello"}, [0])
        received = server.receive(timeout=PATIENCE)
        assert received is not None
        assert received[0] == {"verb": "hello"}
        os.close(received[1][0])
        server.send({"answer": 1})
        assert client.receive(timeout=PATIENCE) == ({"answer": 1}, [])
        for end in (client, server):
            assert end.peer() == (os.getpid(), os.getuid(), os.getgid())


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_the_socket_is_for_its_owner_whatever_the_umask(rundir: RunDir, umask: int) -> None:
    before = os.umask(umask)
    try:
        with listen(rundir):
            assert rundir.socket_path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_accept_does_not_wait_and_nothing_is_inherited(rundir: RunDir) -> None:
    with listen(rundir) as listener:
        assert not os.get_inheritable(listener.fileno())
        with pytest.raises(BlockingIOError):
            listener.accept()
        with connect(rundir) as client, accept(listener) as server:
            assert not os.get_inheritable(client.fileno())
            assert not os.get_inheritable(server.fileno())


def test_a_path_longer_than_a_socket_address_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 120)
    monkeypatch.setenv("MULTIKERNEL_RUN", str(deep))
    rundir = RunDir("é" * 32)
    rundir.claim()
    assert len(os.fsencode(rundir.socket_path)) > 108
    with listen(rundir) as listener, connect(rundir) as client, accept(listener) as server:
        assert rundir.socket_path.is_socket()
        client.send({"a": 1})
        assert server.receive(timeout=PATIENCE) == ({"a": 1}, [])
    rundir.remove()


@pytest.mark.parametrize("length", range(105, 111))
def test_paths_around_the_limit_of_a_socket_address_work(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setenv("MULTIKERNEL_RUN", f"{short}/{'d' * 40}")
        name = "x" * (length - len(os.fsencode(RunDir("x").socket_path)) + 1)
        rundir = RunDir(name)
        assert len(os.fsencode(rundir.socket_path)) == length
        rundir.claim()
        with listen(rundir) as listener, connect(rundir), accept(listener):
            assert rundir.socket_path.is_socket()
        rundir.remove()


def test_a_second_listener_is_refused(rundir: RunDir) -> None:
    with listen(rundir), pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        listen(rundir)


def test_listening_without_the_directory_fails_and_leaves_nothing(rundir: RunDir) -> None:
    rundir.remove()
    with pytest.raises(FileNotFoundError):
        listen(rundir)


def test_a_machine_that_does_not_run_is_not_found_and_those_that_do_are_named(rundir: RunDir) -> None:
    with pytest.raises(NotFound, match=r"'db'.*'web'") as caught:
        connect(RunDir("db"))
    assert caught.value.fields == {"name": "db", "running": ("web",)}


def test_what_a_killed_host_left_behind_is_not_found(rundir: RunDir) -> None:
    listen(rundir).close()
    rundir.close()  # the socket's file stays, the lock goes: as a SIGKILL leaves it
    assert rundir.socket_path.exists()
    with pytest.raises(NotFound):
        connect(rundir)


def test_connect_waits_for_a_host_that_has_the_name_and_does_not_listen_yet(rundir: RunDir) -> None:
    listeners: list[socket.socket] = []
    starting = threading.Timer(0.1, lambda: listeners.append(listen(rundir)))
    starting.start()
    with connect(rundir, timeout=30):
        starting.join()
    listeners[0].close()


def test_connect_gives_up_on_a_host_that_never_listens(rundir: RunDir) -> None:
    started = time.monotonic()
    with pytest.raises(Timeout, match=r"host\.log"):
        connect(rundir, timeout=0.05)
    assert 0.05 <= time.monotonic() - started < PATIENCE


def test_connect_gives_up_on_a_host_that_accepts_nobody(rundir: RunDir) -> None:
    with listen(rundir):
        clients = [connect(rundir, timeout=0.05) for _ in range(BACKLOG + 1)]  # the kernel lets one more in
        with pytest.raises(Timeout):
            connect(rundir, timeout=0.05)
        for client in clients:
            client.close()
