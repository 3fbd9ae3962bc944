"""Somebody may open no more descriptors, start no more processes, map no more memory: at each point where that can be.

The limit of a running process is set to what it has and n more, for each n from 0 until there is enough. Each time
everything either works or is refused with what is short; nothing is left of what was refused, nobody else notices, and
with the limit gone all of it works.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from multikernel.host import address
from multikernel.host.rundir import RunDir
from multikernel.kernel.protocol import PROTOCOL
from tests.eventually import PATIENCE, until
from tests.native.build import build
from tests.test_lifecycle import names_of_children, state_of

from .cgroups import group
from .killing import zygote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST = 60  # of which no step needs as many
IMAGES = Path(__file__).parent.parent / "images"
ECHO = f"{IMAGES / 'echo.py'}:main"
HARD = resource.RLIM_INFINITY
SHORT = (
    "Too many open files",
    "may open no more",
    "Cannot allocate memory",
    "Resource temporarily unavailable",
    "can't start new thread",
)


pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="sees how much others hold: to look into a process that is closed one has to be root"
)


@pytest.fixture
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="1G") as machine:
        yield machine


@pytest.fixture
def other(machine: mk.Machine) -> mk.Instance:
    """An instance that has nothing to do with it."""
    return make(machine, "other")


def goes_on(machine: mk.Machine) -> None:
    """The other one does."""
    with machine.connect("other") as link:
        assert link.request(b"there?", timeout=PATIENCE).payload == b"there?"
    assert (machine["other"].state, machine["other"].epoch) == ("active", 1)


def make(machine: mk.Machine, name: str, image: str = ECHO) -> mk.Instance:
    instance = machine.create(name, memory="32M", exclusive=False)
    instance.load(image)
    instance.boot(until="ready")
    return instance


@contextlib.contextmanager
def free_memory(pid: int, count: int) -> Iterator[None]:
    """A process may map 2^`count` pages more; none, for 0."""
    status = Path(f"/proc/{pid}/status").read_text()
    mapped = int(status.partition("VmSize:")[2].split()[0]) * 1024
    resource.prlimit(pid, resource.RLIMIT_AS, (mapped + (resource.getpagesize() << count if count else 0), HARD))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, (HARD, HARD))


@contextlib.contextmanager
def free_descriptors(pid: int, count: int) -> Iterator[None]:
    """A process may open `count` descriptors more."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    limit = [fd for fd in range(len(used) + count + 1) if fd not in used][count]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def step(do: Callable[[], object]) -> bool:
    """Whether it could be done; if not, the error says what is short."""
    try:
        do()
    except (mk.MultikernelError, OSError) as error:
        if not any(words in str(error) for words in SHORT):
            raise
        return False
    return True


def a_life(machine: mk.Machine, web: mk.Instance) -> bool:
    """Load it, boot it, connect to it, ask it something. Whether all of it could be done."""
    if not (step(lambda: web.load(ECHO)) and step(lambda: web.boot(until="ready"))):
        return False
    links: list[mk.Link] = []
    if not step(lambda: links.append(machine.connect("web"))):
        return False
    with links[0] as link:
        assert link.request(b"hello", timeout=PATIENCE).payload == b"hello"
    return True


def anew(machine: mk.Machine) -> mk.Instance:
    """Whatever has become of it, there is a new one in its place: the report of one that has failed is gone, too.

    A boot of which the program could not take the answer goes on meanwhile.
    """
    deadline = time.monotonic() + PATIENCE
    while "web" in list(machine):
        assert time.monotonic() < deadline
        with contextlib.suppress(mk.StateError):
            machine["web"].kill()
        with contextlib.suppress(mk.StateError):
            machine.delete("web")
    return machine.create("web", memory="32M", exclusive=False)


def holdings(machine: mk.Machine, web: mk.Instance) -> tuple[int, ...]:
    """How many descriptors host, zygote, program and instance have; none of them is in the middle of something."""
    pids = machine.pid, zygote(machine), os.getpid(), web.pid
    until(lambda: "mk-spare" in names_of_children(str(pids[1])) and state_of(str(pids[1])) == "S")
    return tuple(map(held, filter(None, pids)))


def held(pid: int) -> int:
    """How many descriptors a process has, but for a panic report: where the instance itself has died it is kept."""
    count = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            count += not os.readlink(f"/proc/{pid}/fd/{fd}").startswith("/memfd:panic:")
    return count


def settled(machine: mk.Machine, web: mk.Instance, before: tuple[int, ...]) -> None:
    """Nothing is left: the host lets go of a link once it has read that it is closed."""
    until(lambda: holdings(machine, web) == before)


@pytest.mark.parametrize("who", ["host", "zygote", "program"])
def test_every_step_without_descriptors_is_done_or_refused(machine, other, who):
    pid = {"host": machine.pid, "zygote": zygote(machine), "program": os.getpid()}[who]
    assert tries(machine, lambda count: free_descriptors(pid, count)) > 5, "nothing was short, so nothing was tried"


def test_host_that_can_write_nothing_down_goes_on():
    """It says in its log what the next one will not have; and what was never written need not be erased."""
    with mk.Machine(memory="1G", name="lasting", persist=True) as machine:
        try:
            make(machine, "other")
            pid = machine.pid

            def without(count: int) -> contextlib.AbstractContextManager[None]:
                if count == 0:
                    with free_descriptors(pid, 0):
                        machine.create("unwritten", memory="1M", exclusive=False)
                    machine.delete("unwritten")
                return free_descriptors(pid, count)

            assert tries(machine, without) > 5, "nothing was short, so nothing was tried"
            assert "not kept for another host" in RunDir("lasting").log_path.read_text()
        finally:
            machine.shutdown()


@pytest.mark.parametrize("who", ["host", "program"])
def test_every_step_without_memory_is_done_or_refused(machine, other, who):
    pid = machine.pid if who == "host" else os.getpid()
    assert tries(machine, lambda count: free_memory(pid, count)) > 0, "nothing was short, so nothing was tried"


def tries(machine: mk.Machine, short: Callable[[int], contextlib.AbstractContextManager[None]]) -> int:
    """Try a life with ever more of what is `short`, until all of it can be done. How often something could not."""
    make(machine, "web")
    web = anew(machine)
    before = holdings(machine, web)
    for count in range(MOST):
        with short(count):
            done = a_life(machine, web)
        web = anew(machine)
        settled(machine, web, before)
        goes_on(machine)
        if done:
            return count
    raise AssertionError(f"{MOST} are not enough")


def test_client_that_comes_when_the_host_has_no_descriptors_is_let_in_when_it_has_some(machine, other):
    """It waits; the others are served meanwhile, and the log says it once."""
    log = RunDir(machine.name).log_path
    with free_descriptors(machine.pid, 0):
        channel = address.connect(RunDir(machine.name))
        channel.send({"verb": "join", "id": 1, "protocol": PROTOCOL})
        until(lambda: "cannot accept a client" in log.read_text())
        with pytest.raises(mk.Timeout):
            channel.receive(timeout=0.5)
        machine.create("more", memory="1M", exclusive=False)
        machine.delete("more")
    with channel:
        answer, (page,) = channel.receive(timeout=PATIENCE)
        os.close(page)
    assert answer["ok"]["name"] == machine.name
    assert log.read_text().count("cannot accept a client") == 1
    goes_on(machine)


@pytest.mark.parametrize("kind", ["python", "native"])
def test_instance_without_descriptors_refuses_links_and_goes_on(machine, other, kind, tmp_path):
    """It may have used them all itself: a newcomer is told so, and is none of those that it serves."""
    web = make(machine, "web", ECHO if kind == "python" else str(build(IMAGES / "peer.c", tmp_path, "-rdynamic")))
    pid, before = web.pid, holdings(machine, web)
    with machine.connect("web") as old:
        assert old.request(b"there?", timeout=PATIENCE).payload == b"there?"  # the other side has it whole by now
        for count in range(MOST):
            with free_descriptors(pid, count):
                done = step_or_closed(machine)
            assert old.request(b"still there?", timeout=PATIENCE).payload == b"still there?"
            if done:
                break
    assert count > 3, "nothing was short, so nothing was tried"
    assert done
    assert (web.pid, web.state) == (pid, "active")
    settled(machine, web, before)
    goes_on(machine)


def step_or_closed(machine: mk.Machine) -> bool:
    """Whether a new link works. One that the other side has accepted, and cannot finish, is closed."""
    links: list[mk.Link] = []
    if not step(lambda: links.append(machine.connect("web", capacity="64K"))):
        return False
    with links[0] as link:
        try:
            return link.request(b"hello", timeout=PATIENCE).payload == b"hello"
        except mk.Closed:
            return False


def test_boot_without_processes_is_refused_and_works_when_there_are_some():
    """By a cgroup of pids: root has no other limit of them. Of two, since one may have been forked ahead."""
    with group("pids") as limited:
        with limited.entered():
            machine = mk.Machine(memory="1G")
        with machine:
            make(machine, "other")
            booted, refused = 0, 0
            while booted < 2:
                both = [machine.create(name, memory="32M", exclusive=False) for name in ("web", "db")]
                for instance in both:
                    instance.load(ECHO)
                limited.write("pids.max", max(0, int(limited.read("pids.current")) - 3) + refused)
                booted = sum(step(lambda it=instance: it.boot(until="ready")) for instance in both)
                limited.write("pids.max", "max")
                goes_on(machine)
                for instance in both:
                    if instance.state == "active":
                        instance.halt(timeout=PATIENCE)
                    instance.delete()
                refused += booted < 2
                assert refused < MOST
            assert refused, "nothing was short, so nothing was tried"
