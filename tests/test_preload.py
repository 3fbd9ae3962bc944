"""Modules that a machine imports ahead: every instance has them, and a machine that cannot have them does not start."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

import multikernel as mk
from multikernel.host import preload
from tests.eventually import PATIENCE

LOOKS = """
import sys
THERE = [name for name in ("colorsys", "numpy") if name in sys.modules]
def main(kernel):
    import os
    print(THERE, os.environ.get("OPENBLAS_NUM_THREADS"))
"""


@pytest.fixture
def looks(tmp_path: Path) -> str:
    (tmp_path / "looks.py").write_text(LOOKS)
    return str(tmp_path / "looks.py")


def found(machine: mk.Machine, image: str) -> str:
    """What an instance says that it has found, and how many threads its libraries are to start."""
    cpus = sorted(machine.view.machine().cpus)
    web = machine.create("web", cpus=cpus)
    web.load(image)
    web.boot()
    web.wait(timeout=PATIENCE)
    said = machine.proc["instances/web/console"].rstrip()
    web.delete()
    assert said.endswith(f" {len(cpus)}")
    return said.rpartition(" ")[0]


def test_preloaded_modules_are_there_when_an_image_is_entered_and_others_are_not(looks):
    with mk.Machine(memory="64M") as machine:
        assert found(machine, looks) == "[]"
    with mk.Machine(memory="64M", preload=["colorsys", "json.tool"]) as machine:
        assert found(machine, looks) == "['colorsys']"


def test_numpy_can_be_preloaded_and_used(looks, tmp_path):
    (tmp_path / "counts.py").write_text("def main(kernel):\n    import numpy\n    return int(numpy.arange(4).sum())\n")
    with mk.Machine(memory="64M", preload="numpy, colorsys") as machine:
        assert found(machine, looks) == "['colorsys', 'numpy']"
        web = machine.create("web")
        web.load(str(tmp_path / "counts.py"))
        web.boot()
        assert web.wait(timeout=PATIENCE).code == 6


def test_next_zygote_of_a_persistent_machine_preloads_too(looks):
    with mk.Machine(memory="64M", persist=True, name="lasting", preload=["colorsys"]) as machine:
        zygote = int(Path(f"/proc/{machine.pid}/task/{machine.pid}/children").read_text().split()[0])
        os.kill(zygote, signal.SIGKILL)
        assert found(machine, looks) == "['colorsys']"
        machine.shutdown()


@pytest.mark.parametrize("persist", [False, True])
@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "cannot preload 'needed': ModuleNotFoundError: No module named 'needed'"),
        ("raise LookupError('on purpose')", "cannot preload 'needed': LookupError: on purpose"),
        ("raise SystemExit(0)", "cannot preload 'needed': SystemExit: 0"),
        (
            "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
            "cannot preload 'needed': it starts a thread",
        ),
    ],
)
def test_machine_that_cannot_have_its_modules_does_not_start_and_says_why(tmp_path, monkeypatch, source, said, persist):
    if source is not None:
        (tmp_path / "needed.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    begin = time.monotonic()
    with pytest.raises(mk.MultikernelError, match=said) as caught:
        mk.Machine(memory="64M", preload=["needed"], persist=persist, name="wanting")
    assert str(caught.value).count("preload") == 1
    assert "another is started" not in str(caught.value)
    assert time.monotonic() - begin < PATIENCE
    assert "wanting" not in mk.machines()


@pytest.mark.parametrize("names", ["", "a,,b", ["no-name"], ["a b"], "1"])
def test_what_is_no_name_of_a_module_is_refused_before_anything_is_started(names):
    with pytest.raises(ValueError, match="is not the name of a module"):
        mk.Machine(memory="64M", preload=names)


@pytest.mark.parametrize("names", [b"json", [5], [None]])
def test_a_module_whose_name_is_no_text_is_refused(names):
    with pytest.raises(TypeError, match="a module's name is text"):
        preload.names(names)


def test_names_come_as_a_list_or_as_a_text():
    assert preload.names("numpy, json.tool") == preload.names(["numpy", "json.tool"]) == ["numpy", "json.tool"]
    assert preload.names([]) == []
