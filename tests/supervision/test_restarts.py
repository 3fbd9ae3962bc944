"""What follows an end that nobody asked for: restarts, their waits and their limit, and who takes them back."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

import multikernel as mk
from multikernel.host.policy import Policy
from tests.eventually import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable

FACTOR = int(os.environ.get("MULTIKERNEL_STRESS", "1"))

SERVES = """
    import os
    def main(kernel):
        for message in kernel.messages():
            message.reply(str(kernel.epoch).encode())
"""
DIES = "def main(kernel): raise LookupError('on purpose')"
RETURNS = "def main(kernel): pass"
DIES_TWICE = """
    def main(kernel):
        if kernel.epoch < 3:
            raise LookupError("on purpose")
        for message in kernel.messages():
            message.reply(str(kernel.epoch).encode())
"""
LATER = mk.Restart("on-failure", delay=600, longest=600)
DIES_IN_BOOT = """
    raise LookupError("on purpose")
    def main(kernel): pass
"""


@pytest.fixture
def web(create: Callable[..., mk.Instance], load: Callable[..., None]) -> Callable[..., mk.Instance]:
    """Makes an instance called web, with an image of that source."""

    def make(source: str, **policy: object) -> mk.Instance:
        web = create(**policy)
        load(web, source)
        return web

    return make


def ended(it: mk.Instance, epoch: int) -> mk.End:
    """Wait for the end of that incarnation."""
    until(lambda: it.epoch >= epoch)
    assert it.epoch == epoch
    return it.wait(timeout=PATIENCE)


def soon(when: str, **more: float) -> mk.Restart:
    return mk.Restart(when, delay=0.001, longest=0.001, **more)


def supervised(web: mk.Instance):
    return web.machine.view.instance(web.id).supervised


def epoch_served(web: mk.Instance) -> int:
    with web.machine.connect("web", timeout=PATIENCE) as link:
        return int(link.request(b"", timeout=PATIENCE).payload)


# --- when it is restarted


@pytest.mark.parametrize("when", ["on-failure", "always"])
def test_instance_that_is_killed_from_outside_is_booted_again(web, when):
    it = web(SERVES, restart=when)
    it.boot()
    os.kill(it.pid, signal.SIGKILL)
    until(lambda: (it.state, it.epoch) == ("active", 2))
    assert epoch_served(it) == 2
    assert (it.last_end.reason, it.last_end.signal) == ("signal", signal.SIGKILL)


def test_restart_goes_on_until_the_image_stays(web):
    it = web(DIES_TWICE, restart=soon("on-failure"))
    it.boot()
    until(lambda: (it.state, it.epoch) == ("active", 3))
    assert epoch_served(it) == 3
    assert supervised(it).restarts == 2


def test_instance_without_a_policy_stays_failed(web):
    it = web(DIES)
    it.boot()
    it.wait(timeout=PATIENCE)
    assert (it.state, it.epoch, supervised(it).restart_at_ns) == ("failed", 1, 0)


def test_main_that_returns_is_restarted_by_always_and_left_by_on_failure(web):
    it = web(RETURNS, restart=soon("on-failure"))
    it.boot()
    it.wait(timeout=PATIENCE)
    assert (it.state, supervised(it).restart_at_ns) == ("loaded", 0)
    it.delete()
    it = web(RETURNS, restart=soon("always", limit=3))
    it.boot()
    ended(it, 4)
    assert (it.state, supervised(it).restart_at_ns) == ("loaded", 0)


@pytest.mark.parametrize("end", ["halt", "kill"])
def test_what_somebody_ends_is_not_restarted(web, end):
    it = web(SERVES, restart=soon("always"))
    it.boot()
    getattr(it, end)()
    assert (it.state, supervised(it).restart_at_ns) == ("loaded", 0)


def test_boot_that_somebody_asked_for_and_that_fails_is_told_and_not_tried_again(web):
    it = web(DIES_IN_BOOT, restart=soon("always"))
    with pytest.raises(mk.BootError):
        it.boot()
    assert (it.state, it.epoch, supervised(it).restart_at_ns) == ("failed", 1, 0)


# --- how long it waits, and how often


@pytest.mark.timeout(60 + 30 * FACTOR)
def test_image_that_dies_at_once_is_given_up_at_the_limit_and_leaves_nothing(web):
    """A thousand boots of it: MULTIKERNEL_STRESS=40."""
    boots = 25 * FACTOR
    it = web(DIES, restart=soon("on-failure", limit=boots))
    before = it.machine._membership.request("census", {})
    it.boot()
    until(lambda: it.epoch == boots + 1, patience=60 * FACTOR)
    it.wait(timeout=PATIENCE)
    assert (it.state, supervised(it).restarts, supervised(it).restart_at_ns) == ("failed", boots, 0)
    assert "RestartIn:\t-\n" in it.machine.proc["instances/web/status"]
    after = it.machine._membership.request("census", {})
    assert after["objects"] == before["objects"]
    assert after["descriptors"] <= before["descriptors"] + 3  # the last incarnation's pages, and what is kept of it


def test_wait_grows_with_each_restart_in_a_row_up_to_the_longest():
    rule = mk.Restart("always", delay=0.5, longest=3.0)
    assert [rule.wait_before(n) for n in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert rule.wait_before(10**6) == 3.0


def test_restart_does_not_come_before_its_wait_is_over(web):
    it = web(DIES, restart=mk.Restart("on-failure", delay=0.2, longest=0.2, limit=1))
    before = time.monotonic_ns()  # it dies later
    it.boot()
    until(lambda: it.epoch == 2)
    assert supervised(it).claimed_ns >= before + 0.2e9


def test_time_of_a_restart_that_is_due_is_shown(web):
    it = web(DIES, restart=LATER)
    it.boot()
    it.wait(timeout=PATIENCE)
    died = it.machine.view.instance(it.id).state_time_ns
    assert died + 599e9 <= supervised(it).restart_at_ns <= died + 601e9
    shown = it.machine.proc["instances/web/status"].split("RestartIn:\t")[1].split()[0]
    assert 600 - PATIENCE < float(shown) <= 601


def test_good_run_begins_the_count_anew(web):
    it = web(SERVES, restart=soon("on-failure", limit=2, good_after=0.0))
    it.boot()
    for epoch in range(1, 6):
        until(lambda epoch=epoch: (it.state, it.epoch) == ("active", epoch))
        os.kill(it.pid, signal.SIGKILL)
    until(lambda: (it.state, it.epoch) == ("active", 6))
    assert supervised(it).restarts == 1


def test_boot_by_somebody_begins_the_count_anew(web):
    it = web(DIES, restart=soon("on-failure", limit=2))
    for boots in (3, 6):
        it.boot()
        ended(it, boots)
        assert supervised(it).restarts == 2


# --- who takes it back


@pytest.mark.parametrize("step", ["halt", "kill"])
def test_restart_that_is_due_is_taken_back_by_halt_and_kill(web, step):
    it = web(DIES, restart=LATER)
    it.boot()
    it.wait(timeout=PATIENCE)
    assert supervised(it).restart_at_ns
    end = getattr(it, step)()
    assert end == it.last_end
    assert (it.state, supervised(it).restart_at_ns) == ("loaded", 0)


def test_restart_that_is_due_is_taken_back_by_every_other_step(web, tmp_path):
    it = web(DIES, restart=LATER)
    for step in (it.boot, lambda: it.load(str(tmp_path / "image.py")), it.unload):
        if it.state == "loaded":
            it.boot()
        it.wait(timeout=PATIENCE)
        assert supervised(it).restart_at_ns
        step()
        if step == it.boot:
            it.wait(timeout=PATIENCE)
        else:
            assert supervised(it).restart_at_ns == 0
        if it.state == "ready":
            it.load(str(tmp_path / "image.py"))


def test_load_that_is_refused_leaves_the_restart_due(web, tmp_path):
    it = web(DIES, restart=LATER, memory="1M")
    it.boot()
    it.wait(timeout=PATIENCE)
    (tmp_path / "large.py").write_text("#" * (2 << 20) + "\ndef main(kernel): pass\n")
    with pytest.raises((mk.ResourceError, mk.ImageError)):
        it.load(str(tmp_path / "large.py"))
    assert supervised(it).restart_at_ns


def test_machine_that_ends_restarts_nothing(tmp_path):
    (tmp_path / "image.py").write_text(DIES)
    with mk.Machine(memory="64M") as machine:
        web = machine.create("web", restart=mk.Restart("always", delay=0.0, longest=0.0, limit=10**6))
        web.load(str(tmp_path / "image.py"))
        web.boot()
        until(lambda: web.epoch > 3)


# --- what cannot be meant


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"restart": "sometimes"}, "restart is one of 'never', 'on-failure', 'always', not 'sometimes'"),
        ({"watchdog": 0}, "None switches it off"),
        ({"watchdog": -1.0}, "watchdog is a number of seconds"),
        ({"watchdog": float("nan")}, "watchdog is a number of seconds"),
        ({"on_hang": "panic"}, "on_hang is one of 'report', 'dump', 'reboot', not 'panic'"),
    ],
)
def test_policy_that_cannot_be_meant_is_refused_and_nothing_is_made(machine, policy, said):
    with pytest.raises(ValueError, match=said):
        machine.create("web2", **policy)
    assert "web2" not in machine


@pytest.mark.parametrize("field", [{"delay": -1}, {"limit": 0}, {"limit": 1.5}, {"delay": 9, "longest": 1}])
def test_restart_that_cannot_be_meant_is_refused(field):
    with pytest.raises(ValueError, match=f"{next(iter(field))} is a number of|the longest delay"):
        mk.Restart("always", **field)


def test_policy_passes_the_border_to_the_host_and_nonsense_does_not():
    policy = Policy.of(mk.Restart("always", limit=7), 2.5, "reboot", core=True)
    assert Policy.from_json(policy.to_json()) == policy
    for broken in ({}, {**policy.to_json(), "restart": None}, {**policy.to_json(), "watchdog": "soon"}):
        with pytest.raises(ValueError, match=r"no policy of an instance|watchdog is a number"):
            Policy.from_json(broken)
