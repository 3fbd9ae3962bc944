"""Who is let in at a host's control socket, and who is not. The rest is in tests/host/test_server.py."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from multikernel.host.rundir import RunDir
from multikernel.kernel import protocol
from tests.eventually import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65534
COMMAND = [sys.executable, "-m", "multikernel"]


@pytest.fixture
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="64M") as machine:
        yield machine


def in_a_child(work: Callable[[], int]) -> int:
    """What `work` returns, as the exit status of a forked child."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = work()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="to be another user one has to be root")
def test_another_user_does_not_get_in_though_the_directory_be_open(machine):
    """The run directory keeps others out; if its owner opens it by mistake, the host looks at who has come."""
    rundir = RunDir(machine.name)

    def come() -> int:
        """0: hung up on without an answer; else what happened instead."""
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            try:
                sock.connect(str(rundir.socket_path))
                sock.sendall(b'{"verb": "join", "id": 1, "protocol": 1}')
                if not select.select([sock], [], [], PATIENCE)[0]:
                    return 98
                return 97 if sock.recv(1000) else 0
            except (BrokenPipeError, ConnectionResetError):
                return 0
            except OSError as error:
                return error.errno or 96

    assert in_a_child(come) == errno.EACCES
    base = rundir.path.parent
    modes = {path: path.stat().st_mode & 0o777 for path in (base, rundir.path, rundir.socket_path)}
    try:
        for path in modes:
            path.chmod(0o777)
        assert in_a_child(come) == 0
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    machine.create("web")  # it serves its own
    assert f"uid {NOBODY}" in rundir.log_path.read_text()


@pytest.mark.parametrize("theirs", [0, protocol.PROTOCOL + 1])
def test_client_of_another_version_is_refused_with_both_versions_and_what_to_do(machine, monkeypatch, theirs):
    """It must learn that from the first answer, and not from what fails later."""
    monkeypatch.setattr("multikernel.client.connection.PROTOCOL", theirs)
    with pytest.raises(
        mk.MultikernelError, match=rf"version {protocol.PROTOCOL} .*version {theirs}.*shut it down"
    ) as caught:
        mk.Machine.attach(machine.name)
    assert (caught.value.host, caught.value.client) == (protocol.PROTOCOL, theirs)
    with pytest.raises(mk.MultikernelError, match=f"version {theirs}"):
        mk.Machine(memory="64M", name="another")
    assert mk.machines() == [machine.name]


def test_of_two_shells_that_make_the_same_machine_one_does_and_the_other_is_told(tmp_path):
    """Both commands are typed at once; whoever comes second uses what the first has made."""
    commands = [*COMMAND, "init", "-M", "shared", "--memory", "64M"]
    both = [
        subprocess.Popen(commands, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=PATIENCE) for process in both]
    try:
        assert sorted(process.returncode for process in both) == [0, 5], said
        refused = next(err for process, (_, err) in zip(both, said, strict=True) if process.returncode)
        assert "'shared' is running already" in refused
        assert mk.machines() == ["shared"]
    finally:
        subprocess.run([*COMMAND, "shutdown", "-M", "shared"], check=True, timeout=PATIENCE, capture_output=True)
    assert mk.machines() == []
