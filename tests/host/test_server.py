"""The control socket, asked by those who do not know how to, or do not want to."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from multikernel.errors import Closed, MultikernelError, StateError, from_wire
from multikernel.host import address
from multikernel.host.client import check_user
from multikernel.host.rundir import RunDir
from multikernel.image import read
from multikernel.kernel.protocol import PROTOCOL
from multikernel.shm.channel import MAX_DESCRIPTORS, MAX_DOCUMENT, Channel
from tests.eventually import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="64M") as machine:
        yield machine


@pytest.fixture
def channel(machine: mk.Machine) -> Iterator[Channel]:
    """A client of which only the socket is as it should be."""
    with address.connect(RunDir(machine.name)) as channel:
        yield channel


def send_raw(channel: Channel, data: bytes, fds: list[int] | None = None) -> None:
    with socket.socket(fileno=os.dup(channel.fileno())) as raw:
        socket.send_fds(raw, [data], fds or [])


def ask(channel: Channel, document: dict) -> dict:
    channel.send(document)
    answer, fds = channel.receive(timeout=PATIENCE)
    for fd in fds:
        os.close(fd)
    return answer


def assert_dropped(channel: Channel) -> None:
    with pytest.raises(Closed):
        channel.receive(timeout=PATIENCE)


def assert_serves(machine: mk.Machine) -> None:
    machine.create("served")
    machine.delete("served")


def holdings(machine: mk.Machine) -> dict[str, int]:
    """What the host holds open, once it has done what was asked of it before."""
    return machine._membership.request("census", {})


def test_clients_that_leave_as_an_instance_ends_keep_nobody_from_being_told(machine, tmp_path):
    """The host finds them gone when it tells them of the end, and has others to tell, and a restart to plan."""
    (tmp_path / "image.py").write_text("def main(kernel):\n    for message in kernel.messages(): pass\n")
    web = machine.create("web", restart=mk.Restart("always", delay=0.0))
    web.load(f"{tmp_path}/image.py")
    web.boot(until="ready")
    for epoch in range(1, 4):
        leaving = [mk.Machine.attach(machine.name) for _ in range(3)]
        pid = web.pid
        os.kill(machine.pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))  # the zygote has taken it, and tells its host
        for each in leaving:
            each.close()
        os.kill(machine.pid, signal.SIGCONT)
        until(lambda epoch=epoch: (web.state, web.epoch) == ("active", epoch + 1))
    assert RunDir(machine.name).log_path.read_text() == ""


def test_other_user_is_refused():
    check_user(os.geteuid())
    with pytest.raises(Closed, match=f"uid {os.geteuid() + 1}"):
        check_user(os.geteuid() + 1)
    if os.geteuid() != 0:
        with pytest.raises(Closed, match="uid 0"):
            check_user(0)


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff\xfe", b'"text"', b"[" * 5000, b'{"a":' * 40 + b"1" + b"}" * 40])
def test_client_that_sends_no_document_is_dropped(machine, channel, data):
    send_raw(channel, data)
    assert_dropped(channel)
    assert_serves(machine)


def test_client_that_sends_too_large_a_packet_is_dropped(machine, channel):
    send_raw(channel, b'{"verb": "' + b"x" * MAX_DOCUMENT + b'"}')
    assert_dropped(channel)
    assert_serves(machine)


def test_client_that_sends_too_many_descriptors_is_dropped_and_none_is_kept(machine, channel):
    before = holdings(machine)
    fd = os.memfd_create("surplus")
    send_raw(channel, b'{"verb": "kill"}', [fd] * (MAX_DESCRIPTORS + 50))
    os.close(fd)
    assert_dropped(channel)
    after = holdings(machine)
    assert after["descriptors"] <= before["descriptors"]


def test_descriptors_that_nobody_asked_for_are_closed(machine, channel):
    before = holdings(machine)
    fd = os.memfd_create("surplus")
    for verb in ("kill", "join", "no such verb", "seen", "load", "connect", "create"):
        channel.send({"verb": verb, "id": 1, "name": "web", "instance": 7, "image": {}}, [fd] * 3)
    os.close(fd)
    ask(channel, {"verb": "census", "id": 2})
    assert holdings(machine)["descriptors"] == before["descriptors"]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"verb": None, "id": 1},
        {"verb": ["kill"], "id": 1},
        {"verb": "x" * 1000, "id": 1},
        {"verb": "create", "id": 1},
        {"verb": "create", "id": 1, "name": 5, "cpus": None, "memory": 1, "exclusive": True, "instance": None},
        {"verb": "create", "id": 1, "name": "a", "cpus": "0", "memory": 1, "exclusive": True, "instance": None},
        {
            "verb": "create",
            "id": 1,
            "name": "a",
            "cpus": [10**30],
            "memory": 2**20,
            "exclusive": True,
            "instance": None,
        },
        {"verb": "create", "id": 1, "name": "a", "cpus": None, "memory": -1, "exclusive": True, "instance": None},
        {"verb": "create", "id": 1, "name": "a/b", "cpus": None, "memory": 2**20, "exclusive": True, "instance": None},
        {"verb": "create", "id": 1, "name": "a", "cpus": None, "memory": 2**20, "exclusive": True, "instance": 512},
        {"verb": "create", "id": 1, "name": "a", "cpus": None, "memory": 2**20, "exclusive": True, "instance": 0},
        {"verb": "boot", "id": {"deep": []}, "name": "none", "instance": None, "until": "active", "timeout": 1},
        {"verb": "shutdown", "id": 1, "timeout": "soon"},
        {"verb": "start", "id": 1, "name": "other"},
    ],
)
def test_request_that_makes_no_sense_is_answered_with_an_error(machine, channel, document):
    answer = ask(channel, document)
    assert answer["answer"] == document.get("id")
    assert isinstance(from_wire(answer["failed"]), MultikernelError)
    assert len(machine) == 0
    assert_serves(machine)


def test_step_of_an_instance_in_the_wrong_state_is_a_state_error_on_the_wire(machine, channel):
    machine.create("web")
    answer = ask(channel, {"verb": "boot", "id": 1, "name": "web", "instance": None, "until": "active", "cold": False,
                          "timeout": 1})  # fmt: skip
    with pytest.raises(StateError, match="it is ready"):
        raise from_wire(answer["failed"])


def test_handle_of_a_deleted_instance_does_not_reach_its_successor_of_the_same_name(machine, channel):
    machine.create("web", id=5)
    machine.delete("web")
    machine.create("web", id=6)
    answer = ask(channel, {"verb": "delete", "id": 1, "name": "web", "instance": 5})
    assert answer["failed"]["error"] == "NotFound"
    assert list(machine) == ["web"]


def test_client_that_asks_and_never_reads_holds_up_nobody(machine, channel):
    deadline = time.monotonic() + PATIENCE
    try:
        while channel.send({"verb": "no such verb" * 5, "id": 1}, wait=False):
            assert time.monotonic() < deadline, "the host takes requests without end, and answers them nowhere"
    except Closed:
        pass  # dropped; else it is only not read from any more, which is as good
    assert_serves(machine)


def test_client_that_never_reads_gets_one_push_for_each_instance(machine, channel, tmp_path):
    """However often an instance boots, what waits for a client that does not read is bounded."""
    (tmp_path / "image.py").write_text("def main(kernel): pass\n")
    web = machine.create("web")
    web.load(f"{tmp_path}/image.py")
    answer = ask(channel, {"verb": "join", "id": 1, "protocol": PROTOCOL})
    assert answer["ok"]["name"] == machine.name
    assert ask(channel, {"verb": "watch", "id": 2}) == {"answer": 2, "ok": {}}
    for _ in range(5):
        web.boot()
        web.wait(timeout=PATIENCE)
    pushes = []
    while (received := channel.receive(timeout=0)) is not None:
        pushes.append(received[0])
        for fd in received[1]:
            os.close(fd)
    assert [push["epoch"] for push in pushes] == [1]
    channel.send({"verb": "seen", "instance": web.id})
    push, fds = channel.receive(timeout=PATIENCE)
    for fd in fds:
        os.close(fd)
    assert push == {"push": "incarnation", "id": web.id, "epoch": 5, "panic": 0}


def test_client_that_watches_has_the_pages_of_all_instances_before_the_answer(machine, channel, tmp_path):
    (tmp_path / "image.py").write_text("def main(kernel): pass\n")
    one = {"cpus": min(os.sched_getaffinity(0)), "memory": "1M", "exclusive": False}
    instances = [machine.create(name, **one) for name in ("web", "db")]
    for instance in instances:
        instance.load(f"{tmp_path}/image.py")
        instance.boot()
        instance.wait(timeout=PATIENCE)
    ask(channel, {"verb": "join", "id": 1, "protocol": PROTOCOL})
    channel.send({"verb": "watch", "id": 2})
    came = []
    while "answer" not in (came[-1] if came else {}):
        document, fds = channel.receive(timeout=PATIENCE)
        for fd in fds:
            os.close(fd)
        came.append(document)
    pushes = [{"push": "incarnation", "id": instance.id, "epoch": 1, "panic": 0} for instance in instances]
    assert came == [*pushes, {"answer": 2, "ok": {}}]


def test_image_that_is_not_what_its_description_says_is_refused(machine, channel):
    web = machine.create("web")
    fd = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    description = {"kind": "script", "name": "a", "entry": "main", "module": "a", "origin": "/a.py", "size": 0}
    for image in ({}, {**description, "digest": "0" * 64, "path": []}):
        request = {
            "verb": "load",
            "id": 1,
            "name": "web",
            "instance": web.id,
            "cmdline": "",
            "directory": "/",
            "initrd": None,
            "signature": None,
            "panic": False,
            "dry_run": False,
        }
        channel.send({**request, "image": image}, [fd])
        answer, _ = channel.receive(timeout=PATIENCE)
        assert answer["failed"]["error"] == "ImageError"
    os.close(fd)
    assert web.state == "ready"


def test_command_line_with_an_open_quote_is_refused_whoever_sends_it(machine, channel, tmp_path):
    (tmp_path / "echo.py").write_text("def main(kernel):\n    return 0\n")
    web = machine.create("web")
    with read(f"{tmp_path}/echo.py") as image:
        request = {
            "verb": "load",
            "id": 1,
            "name": "web",
            "instance": web.id,
            "cmdline": 'a="b',
            "directory": "/",
            "initrd": None,
            "signature": None,
            "panic": False,
            "dry_run": False,
        }
        channel.send({**request, "image": image.describe()}, [image.fd])
        answer, _ = channel.receive(timeout=PATIENCE)
    assert answer["failed"]["error"] == "ImageError"
    assert "never closed, at character 3" in answer["failed"]["message"]
    assert web.state == "ready"


def test_connect_with_descriptors_that_are_no_lane_is_refused(machine, channel, tmp_path):
    (tmp_path / "echo.py").write_text("def main(kernel):\n    for _ in kernel.messages(): pass\n")
    web = machine.create("web")
    web.load(f"{tmp_path}/echo.py")
    web.boot()
    fd = os.memfd_create("no lane")
    for fds in ([], [fd], [fd, fd], [fd, fd, fd]):
        channel.send({"verb": "connect", "id": 1, "to": "web", "capacity": 4096, "timeout": 1}, fds)
        answer, _ = channel.receive(timeout=PATIENCE)
        assert "failed" in answer
    os.close(fd)
    assert web.state == "active"
    with machine.connect("web") as link:
        assert link.peer_id == web.id
