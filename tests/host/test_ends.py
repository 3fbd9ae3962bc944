from __future__ import annotations

import signal

import pytest

from multikernel.host.ends import Facts, judge

CASES = [
    # main ended by itself
    ("main returned 0", Facts(0, 0, reason="returned"), "returned", "loaded"),
    ("main returned 3", Facts(3, 0, reason="returned"), "returned", "failed"),
    ("main raised", Facts(1, 0, reason="exception", traceback="..."), "exception", "failed"),
    ("sys.exit(0)", Facts(0, 0, reason="exit"), "exit", "loaded"),
    ("os._exit(0), without a word", Facts(0, 0), "exit", "loaded"),
    ("os._exit(7), without a word", Facts(7, 0), "exit", "failed"),
    ("a signal", Facts(0, signal.SIGSEGV), "signal", "failed"),
    ("a signal after its last word", Facts(0, signal.SIGSEGV, reason="returned"), "signal", "failed"),
    ("a SIGKILL that the host did not send", Facts(0, signal.SIGKILL), "signal", "failed"),
    # the host asked
    ("halted", Facts(0, 0, asked="halt", reason="returned"), "halted", "loaded"),
    ("halted, and returned 3", Facts(3, 0, asked="halt", reason="returned"), "returned", "loaded"),
    ("halted, and raised", Facts(1, 0, asked="halt", reason="exception"), "exception", "loaded"),
    ("halted, and died of a signal", Facts(0, signal.SIGSEGV, asked="halt"), "signal", "failed"),
    ("halted by force", Facts(0, signal.SIGKILL, asked="halt", forced=True), "halted", "loaded"),
    ("killed", Facts(0, signal.SIGKILL, asked="kill"), "killed", "loaded"),
    ("ended before the kill came", Facts(3, 0, asked="kill", reason="returned"), "returned", "loaded"),
    # in its boot
    ("boot failed", Facts(1, 0, booted=False, reason="boot", traceback="..."), "boot", "failed"),
    ("boot failed of a signal", Facts(0, signal.SIGSEGV, booted=False), "signal", "failed"),
    ("returned 0 before it was ready", Facts(0, 0, booted=False, reason="returned"), "returned", "failed"),
    ("boot took too long", Facts(0, signal.SIGKILL, booted=False, late=True), "boot", "failed"),
    ("killed in its boot", Facts(0, signal.SIGKILL, booted=False, asked="kill"), "killed", "loaded"),
]


@pytest.mark.parametrize(("facts", "reason", "state"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_end_has_its_reason_and_leads_to_its_state(facts, reason, state):
    end, after = judge(facts)
    assert (end.reason, after) == (reason, state)
    assert (end.code, end.signal, end.forced, end.traceback) == (
        facts.code,
        facts.signal,
        facts.forced,
        facts.traceback,
    )
