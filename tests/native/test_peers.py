"""A native instance and one of Python are the same to whoever talks to them: each test runs against both."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from tests.eventually import PATIENCE, until

from .build import IMAGES, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> dict[str, str]:
    return {
        "native": str(build(IMAGES / "peer.c", tmp_path_factory.mktemp("native"))),
        "python": f"{IMAGES / 'peer.py'}:main",
    }


@pytest.fixture(scope="module")
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(cpus=sorted(os.sched_getaffinity(0))[:2], memory="512M") as machine:
        yield machine


@pytest.fixture(params=["native", "python"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def start(machine, images, cpus) -> Iterator[Callable[..., mk.Instance]]:
    """Boot an instance of a kind; it is gone after the test."""
    made: list[mk.Instance] = []

    def start(kind: str, name: str = "web", cmdline: str = "", **policy: object) -> mk.Instance:
        instance = machine.create(name, cpus=[cpus[0]], memory="16M", exclusive=False, **policy)
        made.append(instance)
        instance.load(images[kind], cmdline=cmdline)
        instance.boot(timeout=PATIENCE)
        return instance

    yield start
    for instance in made:
        with contextlib.suppress(mk.StateError):  # nothing of it runs
            instance.kill()
        machine.delete(instance.name)


@pytest.fixture
def web(start, kind) -> mk.Instance:
    return start(kind, cmdline='key=1 text="two words" flag')


@pytest.fixture
def link(machine, web) -> Iterator[mk.Link]:
    with machine.connect("web", capacity="64K") as link:
        yield link


def ask(link: mk.Link, text: str) -> str:
    return link.request(text.encode(), timeout=PATIENCE).payload.decode()


def test_a_message_comes_back_with_its_type_and_says_whose_it_is(link, web):
    link.send(b"plain", type=mk.NETWORK, subtype=9)
    answer = link.recv(timeout=PATIENCE)
    assert (answer.payload, answer.type, answer.subtype, answer.sender) == (b"plain", mk.NETWORK, 9, web.id)


def test_messages_of_all_sizes_come_back_in_order(link):
    sizes = [0, 1, 7, 8, 9, 23, 24, 25, 100, 4000, 20_000] * 20
    payloads = [bytes([index % 256]) * size for index, size in enumerate(sizes)]
    received = []
    for payload in payloads:
        link.send(payload, timeout=PATIENCE)
        received += [message.payload for message in link.try_recv_many(100)]
    while len(received) < len(payloads):
        received.append(link.recv(timeout=PATIENCE).payload)
    assert received == payloads


def test_a_reply_comes_out_of_its_request_and_other_messages_stay(link):
    assert ask(link, "first") == "three"
    one, two = link.recv(timeout=PATIENCE), link.recv(timeout=PATIENCE)
    assert (one.payload, one.type) == (b"one", mk.USER)
    assert (two.payload, two.type, two.subtype) == (b"two", mk.NETWORK, 3)


def test_a_request_that_nobody_answers_times_out_and_the_next_is_answered(link):
    with pytest.raises(mk.Timeout):
        link.request(b"silence", timeout=0.01)
    assert ask(link, "hello") == "hello"


def test_it_knows_who_it_is(link, web):
    assert ask(link, "who") == f'{web.id} web {web.epoch} {16 << 20} key=1 text="two words" flag'


def test_ipis_raised_before_a_message_are_handled_before_it(link):
    for vector, times in ((63, 1), (5, 3), (0, 2)):
        for _ in range(times):
            link.ipi(vector)
    assert ask(link, "counts") == "0:2 5:3 63:1"


def test_it_interrupts_its_peer(link):
    seen = []
    link.on_ipi(9, lambda vector, count: seen.append((vector, count)))
    assert ask(link, "interrupt 9") == "done"
    assert seen == [(9, 1)]


def test_what_it_prints_is_on_its_console(link, web, machine):
    assert ask(link, "print gr\u00fc\u00dfe") == "printed"
    until(lambda: f"web is instance {web.id} of {machine.name}\n" in machine.proc["instances/web/console"])
    web.halt(timeout=PATIENCE)
    assert machine.proc["instances/web/console"].endswith("gr\u00fc\u00dfe\n")


@pytest.mark.parametrize("other", ["native", "python"])
def test_two_instances_of_any_kinds_ask_each_other(machine, start, kind, other):
    start(kind, "a")
    start(other, "b")
    with machine.connect("a") as a, machine.connect("b") as b:
        assert ask(a, "ask b who").split()[1] == "b"
        assert ask(b, "ask a who").split()[1] == "a"
        assert ask(a, "tell b print told") == "told"
        assert ask(a, "ask b counts") == ""


def test_a_connect_to_nobody_is_an_error_in_the_hosts_words(link):
    assert "no instance 'nobody'" in ask(link, "ask nobody x")


def test_a_client_that_leaves_is_forgotten_and_others_are_served(machine, web, link):
    for _ in range(20):
        with machine.connect("web", capacity="4K") as other:
            assert ask(other, "hello") == "hello"
    # It hears of the last close in its own time.
    until(lambda: ask(link, "hello") == "hello" and "\nLinks:\t1\n" in machine.proc["instances/web/status"])


def test_its_links_go_on_over_a_reboot(link, web):
    for epoch in (1, 2, 3):
        assert ask(link, "who").split()[2] == str(epoch)
        link.send(b"first")  # what it answers to this is still there after the reboot
        web.reboot(timeout=PATIENCE)
        received = [link.recv(timeout=PATIENCE).payload for _ in range(3)]
        assert received == [b"one", b"two", b"three"]


def test_what_it_died_of_comes_again_and_says_so(machine, start, kind):
    web = start(kind, restart=mk.Restart("always", delay=0.0))
    with machine.connect("web", capacity="64K") as link:
        link.send(b"crash")
        link.send(b"after it")
        assert link.recv(timeout=PATIENCE).payload == b"crash"  # by the next one, which echoes it
        assert link.recv(timeout=PATIENCE).payload == b"after it"
    assert web.epoch == 2


@pytest.mark.parametrize("other", ["native", "python"])
def test_it_gets_the_link_again_that_the_one_before_had_asked_for(machine, start, kind, other):
    a = start(kind, "a")
    start(other, "b")
    with machine.connect("a") as link:
        for _ in range(3):
            assert ask(link, "ask b who").split()[1:3] == ["b", "1"]
            assert "\nLinks:\t2\n" in machine.proc["instances/a/status"]
            a.reboot(timeout=PATIENCE)


def test_named_memory_outlives_it(link, web):
    assert [ask(link, "memory table") for _ in range(3)] == ["1", "2", "3"]
    assert ask(link, "memory other") == "1"
    web.reboot(timeout=PATIENCE)
    assert ask(link, "memory table") == "4"
    web.halt(timeout=PATIENCE)
    web.boot(timeout=PATIENCE)


def test_its_status_page_counts_what_it_did(link, machine):
    for _ in range(3):
        ask(link, "hello")
    link.ipi(3)
    ask(link, "hello")
    status = dict(line.split(":\t") for line in machine.proc["instances/web/status"].splitlines())
    assert (status["Sent"], status["IpisReceived"]) == ("4", "1")
    assert status["Received"] in ("3", "4")  # the last is done with when the loop asks for the next
    assert status["Phase"] == "ready"


def test_a_halt_ends_it_and_it_boots_again(link, web):
    end = web.halt(timeout=PATIENCE)
    assert (end.reason, end.code, end.forced, web.state) == ("halted", 0, False, "loaded")
    with pytest.raises(mk.Closed):
        link.recv(timeout=PATIENCE)
    web.boot(timeout=PATIENCE)
    assert (web.state, web.epoch) == ("active", 2)


def test_a_kill_ends_it(link, web):
    web.kill()
    assert (web.last_end.reason, web.last_end.signal, web.state) == ("killed", signal.SIGKILL, "loaded")


@pytest.mark.parametrize(("status", "state"), [(0, "loaded"), (3, "failed")])
def test_its_exit_status_is_its_end(link, web, status, state):
    link.send(f"exit {status}".encode())
    end = web.wait(timeout=PATIENCE)
    assert (end.reason, end.code, web.state) == ("returned", status, state)


def test_a_crash_makes_it_failed(link, web):
    link.send(b"crash")
    end = web.wait(timeout=PATIENCE)
    assert (end.reason, end.signal, web.state) == ("signal", signal.SIGSEGV, "failed")


def test_it_is_confined_as_the_other_kind_is(link, web, cpus):
    ask(link, "hello")
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{web.pid}/status").read_text().splitlines())
    assert status["NoNewPrivs"] == "1"
    assert status["Name"] == "mk:web"
    assert os.sched_getaffinity(web.pid) == {cpus[0]}
    assert os.getpgid(web.pid) == web.pid
    typed, out, err = (ask(link, f"readlink /proc/self/fd/{fd}") for fd in range(3))  # this user may not look itself
    assert typed.startswith("pipe:")  # what is typed on its console
    assert out.startswith("pipe:")
    assert err == out != typed
    assert ask(link, "readlink /proc/self/cwd") == os.getcwd()
