"""The view as a mapping, and as directories."""

from __future__ import annotations

import json

import pytest

from multikernel.errors import NotFound
from multikernel.proc.tree import Proc
from multikernel.shm.pages import InstanceRecord

MACHINE = ["version", "uptime", "cpuinfo", "meminfo", "interrupts", "kimages"]
INSTANCE = ["status", "cmdline", "image", "cpus", "memory", "interrupts", "links", "console", "panic", "boot"]


def test_every_leaf_is_listed_once_and_can_be_read(busy):
    paths = list(busy.proc)
    assert paths == MACHINE + [f"instances/{name}/{leaf}" for name in ("web", "my db") for leaf in INSTANCE]
    assert len(busy.proc) == len(paths)
    for path in paths:
        assert path in busy.proc
        text = busy.proc[path]
        assert isinstance(text, str)
        assert text.endswith("\n") or path.endswith(("console", "panic")), path


def test_a_machine_without_instances_has_a_view(world):
    assert list(world.proc) == MACHINE
    assert world.proc.ls("instances") == []
    for path in MACHINE:
        assert world.proc[path]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("", [*MACHINE, "instances/"]),
        ("/", [*MACHINE, "instances/"]),
        ("instances", ["web/", "my db/"]),
        ("/instances/", ["web/", "my db/"]),
        ("instances/my db", INSTANCE),
    ],
)
def test_ls_lists_a_directory(busy, path, names):
    assert busy.proc.ls(path) == names


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nothing", "there is no 'nothing': the view has version, uptime"),
        ("version/x", "there is no 'version/x': the view has version"),
        ("instances", "'instances' is a directory: instances/ has web/, my db/"),
        ("instances/web", "is a directory: instances/web/ has status, cmdline"),
        ("instances/db/status", "there is no 'instances/db/status': instances/ has web/, my db/"),
        ("instances/web/nothing", "instances/web/ has status"),
        ("", "is a directory"),
    ],
)
def test_a_path_without_a_leaf_says_what_there_is(busy, path, says):
    assert path not in busy.proc
    with pytest.raises(NotFound) as caught:
        busy.proc[path]
    assert says in str(caught.value)
    assert caught.value.path == path
    assert caught.value.names
    assert busy.proc.get(path, "none") == "none"


@pytest.mark.parametrize("path", [None, 5, b"version", ("version",)])
def test_a_path_that_is_no_text_is_a_type_error(busy, path):
    for look in (lambda: busy.proc[path], lambda: busy.proc.ls(path), lambda: busy.proc.snapshot(path)):
        with pytest.raises(TypeError, match="a path of the view is text"):
            look()


def test_ls_refuses_a_leaf_and_what_is_not_there(busy):
    with pytest.raises(NotFound, match="no directory: read it"):
        busy.proc.ls("instances/web/status")
    with pytest.raises(NotFound, match="instances/ has web/"):
        busy.proc.ls("instances/db")
    assert 5 not in busy.proc


def test_instances_come_and_go(busy):
    busy.page.clear_instance(2)
    busy.record(InstanceRecord(3, "new"))
    assert busy.proc.ls("instances") == ["web/", "new/"]
    with pytest.raises(NotFound):
        busy.proc["instances/my db/status"]
    assert "State:\tempty\n" in busy.proc["instances/new/status"]


def test_the_snapshot_is_the_whole_tree_as_a_json_document(busy):
    whole = busy.proc.snapshot()
    assert list(whole) == [*MACHINE, "instances"]
    assert list(whole["instances"]) == ["web", "my db"]
    for instance in whole["instances"].values():
        assert list(instance) == INSTANCE
    assert json.loads(json.dumps(whole))["instances"]["web"]["interrupts"]["instances"]["web"] == {"5": 3, "63": 4}


def test_a_part_of_the_snapshot_can_be_asked_for(busy):
    whole = busy.proc.snapshot()
    assert busy.proc.snapshot("instances/web/links") == whole["instances"]["web"]["links"]
    assert busy.proc.snapshot("instances/web").keys() == whole["instances"]["web"].keys()
    assert busy.proc.snapshot("instances").keys() == whole["instances"].keys()
    assert busy.proc.snapshot("kimages") == whole["kimages"]
    with pytest.raises(NotFound):
        busy.proc.snapshot("instances/db")


def test_pages_may_be_found_by_a_function(busy):
    by_function = Proc(busy.view, busy.held.get)
    assert by_function.snapshot("instances/web/status")["page_epoch"] == 2


def test_reading_changes_nothing_that_another_reader_sees(busy):
    first = [busy.proc.snapshot("instances/web/links"), busy.proc["instances/web/console"]]
    first[0][0]["sent"] = 99
    assert busy.proc.snapshot("instances/web/links")[0]["sent"] == 0
