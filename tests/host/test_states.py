from __future__ import annotations

import pytest

from multikernel.errors import StateError
from multikernel.host.states import STEPS, check_step, legal_steps

# As DESIGN has it; written out again here, so that a change of the table is seen.
LEGAL = {
    "ready": {"load", "delete", "load --panic"},
    "loaded": {"load", "boot", "unload", "delete", "load --panic"},
    "active": {"load --panic", "halt", "kill", "reboot"},
    "failed": {"load", "boot", "reboot", "unload", "delete", "load --panic"},
    "standby": {"kill"},
    "empty": set(),
}


@pytest.mark.parametrize("state", LEGAL)
def test_legal_steps_are_those_of_the_table(state):
    assert set(legal_steps(state)) == LEGAL[state]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("state", LEGAL)
def test_illegal_step_is_refused_with_the_state_and_what_is_legal(state, step):
    if step in LEGAL[state]:
        check_step("web", state, step)
        return
    with pytest.raises(StateError, match=f"cannot {step} 'web': it is {state}") as caught:
        check_step("web", state, step)
    assert caught.value.state == state
    assert caught.value.step == step
    assert set(caught.value.legal) == LEGAL[state]
    for legal in LEGAL[state]:
        assert legal in str(caught.value)
