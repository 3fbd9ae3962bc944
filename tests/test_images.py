"""Images of each kind on machines: loaded, refused, run, and what is told of them."""

from __future__ import annotations

import subprocess
import sys
import zipapp
from collections.abc import Iterator

import pytest

import multikernel as mk
from tests.eventually import PATIENCE, until

MAIN = """
import words

def main(kernel):
    for message in kernel.messages():
        message.reply(words.word + bytes(message.payload))
    return 0
"""


@pytest.fixture
def machine() -> Iterator[mk.Machine]:
    with mk.Machine(memory="64M") as machine:
        yield machine


@pytest.fixture
def kinds(tmp_path, monkeypatch) -> dict[str, str]:
    """One program as an image of each kind; by kind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "app").mkdir()
    (tmp_path / "app/__main__.py").write_text(MAIN)
    (tmp_path / "app/words.py").write_text("word = b'heard: '\n")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/service.py").write_text(MAIN.replace("import words", "from . import words"))
    (tmp_path / "pkg/words.py").write_text("word = b'heard: '\n")
    (tmp_path / "server.py").write_text(MAIN.replace("import words", "from pkg import words"))
    zipapp.create_archive(tmp_path / "app", tmp_path / "app.pyz")
    return {"script": "server.py:main", "module": "pkg.service", "pyz": "app.pyz", "directory": "./app"}


def test_images_of_all_kinds_boot_answer_and_end(machine, kinds):
    for kind, spec in kinds.items():
        instance = machine.create(kind, memory="8M", exclusive=False)
        instance.load(spec)
        instance.boot()
        with machine.connect(kind) as link:
            assert bytes(link.request(b"hello", timeout=PATIENCE).payload) == b"heard: hello"
        assert instance.halt(timeout=PATIENCE).reason == "halted"
    assert [(each.kind, each.name) for each in machine.view.images()] == list(kinds.items())


def test_main_that_only_the_boot_shows_to_be_missing_fails_the_boot(machine, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app/__main__.py").write_text("from app_parts import *\n")
    (tmp_path / "app/app_parts.py").write_text("def other(kernel): pass\n")
    web = machine.create("web")
    web.load(f"{tmp_path}/app")
    with pytest.raises(mk.BootError, match="no function 'main'"):
        web.boot()
    assert web.state == "failed"


def test_script_that_makes_a_machine_whenever_it_is_imported_is_told_so_and_makes_one(tmp_path):
    """Else its instance would make another, with an instance that makes another, and so on."""
    (tmp_path / "program.py").write_text(
        "import multikernel as mk\n"
        "def serve(kernel): pass\n"
        "with mk.Machine(memory='64M') as machine:\n"
        "    web = machine.create('web')\n"
        "    web.load(serve)\n"
        "    web.boot()\n"
    )
    ran = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1
    assert 'belongs under `if __name__ == "__main__":`' in ran.stderr
    assert "BootError" in ran.stderr


def test_image_larger_than_the_pool_is_refused_and_the_error_says_that_no_instance_will_do(tmp_path):
    large = tmp_path / "large.py"
    large.write_text("def main(kernel): pass\n" + "#" * 4_000_000)
    with mk.Machine(memory="3M") as machine:
        web = machine.create("web", memory="2M")
        with pytest.raises(mk.ImageError, match=r"'web' has 2M, .* The pool has no more than 3M: make a machine with"):
            web.load(str(large))
        assert web.state == "ready"
        assert machine.view.images() == []


# --- what is told of them


def test_same_image_loaded_twice_is_kept_once(machine, kinds):
    def held() -> int:
        return machine._membership.request("census", {})["descriptors"]

    one, two = (machine.create(name, memory="8M", exclusive=False) for name in ("one", "two"))
    before = held()
    one.load(kinds["pyz"])
    assert held() == before + 1
    two.load(kinds["pyz"])
    assert held() == before + 1
    assert [image.users for image in machine.view.images()] == [2]
    one.unload()
    two.load(kinds["directory"])
    assert held() == before + 1
    two.unload()
    assert held() == before


def test_images_are_told_with_who_has_and_who_runs_them(machine, kinds):
    for name in ("one", "two"):
        machine.create(name, memory="8M", exclusive=False).load(kinds["script"])
    machine["one"].boot()
    [image] = machine.proc.snapshot("kimages")
    assert (image["name"], image["instances"], image["running"]) == ("server.py:main", ["one", "two"], ["one"])
    assert image["signature"] == "unsigned"
    assert [each["name"] for each in image["imports"]] == ["python", "pkg"]
    with pytest.raises(mk.StateError, match=r"cannot unload 'one': it is active"):
        machine["one"].unload()
    machine["two"].unload()
    assert machine.proc.snapshot("kimages")[0]["instances"] == ["one"]
    machine["one"].halt(timeout=PATIENCE)
    machine["one"].unload()
    assert machine.proc["kimages"] == "No kimages loaded\n"


# --- what is given beside an image

READS = """
def main(kernel):
    initrd = kernel.initrd
    print(initrd if initrd is None else type(initrd).__name__)
    for message in kernel.messages():
        name = bytes(message.payload).decode()
        message.reply(initrd if not name else initrd[name])
    return 0
"""


def test_instance_reads_the_file_that_it_was_given_as_it_was_when_it_was_loaded(machine, tmp_path):
    (tmp_path / "reads.py").write_text(READS)
    (tmp_path / "table").write_bytes(b"as loaded")
    web = machine.create("web")
    web.load(f"{tmp_path}/reads.py", initrd=tmp_path / "table")
    (tmp_path / "table").unlink()
    assert machine.proc.snapshot("instances/web/memory")["initrd"] == len(b"as loaded")
    for _ in range(2):  # it is there at each boot
        web.boot()
        with machine.connect("web") as link:
            assert bytes(link.request(b"", timeout=PATIENCE).payload) == b"as loaded"
        web.halt(timeout=PATIENCE)
    web.load(f"{tmp_path}/reads.py")
    web.boot(until="ready")
    until(lambda: machine.proc["instances/web/console"].startswith("None\n"))


def test_instance_reads_the_directory_that_it_was_given(machine, tmp_path):
    (tmp_path / "reads.py").write_text(READS)
    (tmp_path / "data/conf").mkdir(parents=True)
    (tmp_path / "data/conf/table").write_bytes(b"inside")
    web = machine.create("web")
    web.load(f"{tmp_path}/reads.py", initrd=str(tmp_path / "data"))
    web.boot()
    with machine.connect("web") as link:
        assert bytes(link.request(b"conf/table", timeout=PATIENCE).payload) == b"inside"


def test_initrd_counts_in_the_budget_and_what_was_loaded_stays_when_it_is_refused(machine, tmp_path):
    (tmp_path / "reads.py").write_text(READS)
    (tmp_path / "large").write_bytes(bytes(1_000_000))
    web = machine.create("web", memory="1M")
    web.load(f"{tmp_path}/reads.py")
    with pytest.raises(mk.ImageError, match=r"with its initrd \(976\.6K\) does not fit into 'web'.*more memory"):
        web.load(f"{tmp_path}/reads.py", initrd=tmp_path / "large")
    with pytest.raises(mk.ImageError, match=r"cannot load the initrd /dev/zero: it is a character device"):
        web.load(f"{tmp_path}/reads.py", initrd="/dev/zero")
    assert web.state == "loaded"
    web.boot()
