"""Machines that load signed images only: every kind of image, and everything that must not get in."""

from __future__ import annotations

import importlib
import sys
import zipapp
from collections.abc import Iterator
from pathlib import Path

import pytest

import multikernel as mk
from multikernel import image
from multikernel.image import keys
from multikernel.image.signature import Signature
from tests.eventually import PATIENCE

MAIN = "def main(kernel):\n    print('runs')\n    return 0\n"


@pytest.fixture
def key(tmp_path) -> Path:
    """A private key, whose public one is trusted."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "trusted").mkdir()
    file = tmp_path / "keys/release.key"
    keys.make(file).rename(tmp_path / "trusted/release.pub")
    return file


@pytest.fixture
def machine(key) -> Iterator[mk.Machine]:
    with mk.Machine(memory="64M", verify=key.parent.parent / "trusted") as machine:
        yield machine


@pytest.fixture
def web(machine) -> mk.Instance:
    return machine.create("web", memory="8M")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Where images are, and the working directory."""
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.syspath_prepend(tmp_path / "place")
    return tmp_path / "place"


def sign(spec: str, key: Path) -> str:
    """Sign an image as `multikernel sign` does; its signature's file."""
    with image.read(spec) as read:
        Path(f"{read.origin}.sig").write_text(Signature.make(read, keys.read_private(key)).text())
        return f"{read.origin}.sig"


@pytest.mark.parametrize("kind", ["script", "module", "package", "pyz", "directory", "function"])
def test_signed_image_of_each_kind_runs_and_its_signer_is_told(web, machine, place, key, kind):
    (place / "app").mkdir()
    (place / "app/__main__.py").write_text(MAIN)
    (place / "signed_module.py").write_text(MAIN)
    (place / "signed_package").mkdir()
    (place / "signed_package/__init__.py").write_text(MAIN)
    zipapp.create_archive(place / "app", place / "app.pyz")
    spec = {
        "script": "./signed_module.py",
        "module": "signed_module",
        "package": "signed_package:main",
        "pyz": "app.pyz",
        "directory": "./app/",
        "function": "signed_module:main",
    }[kind]
    sign(spec, key)
    if kind == "function":
        web.load(importlib.import_module("signed_module").main)
        del sys.modules["signed_module"]
    else:
        web.load(spec)
    [row] = machine.view.images()
    [trusted] = keys.read_folder(key.parent.parent / "trusted")
    assert row.signature == keys.key_id(trusted)
    web.boot()
    assert web.wait(timeout=PATIENCE).code == 0
    assert machine.view.machine().trusted == 1


def refusal(web: mk.Instance, spec: str = "server.py") -> str:
    """Why the image is refused; nothing has changed by it."""
    before = web.state
    with pytest.raises(mk.ImageError) as caught:
        web.load(spec)
    assert web.state == before
    return caught.value.reason


def test_image_without_a_signature_or_with_one_of_an_unknown_key_is_refused(web, place, key):
    (place / "server.py").write_text(MAIN)
    assert refusal(web) == "unsigned"
    keys.make(place / "own.key")
    sign("server.py", place / "own.key")
    assert refusal(web) == "untrusted"
    sign("server.py", key)
    web.load("server.py")


def test_image_of_changed_bytes_is_refused_and_what_was_loaded_before_stays(web, machine, place, key):
    (place / "server.py").write_text(MAIN)
    sign("server.py", key)
    web.load("server.py")
    (place / "server.py").write_text(MAIN + "#")
    assert refusal(web) == "changed"
    web.boot()
    assert web.wait(timeout=PATIENCE).code == 0
    assert machine.proc["instances/web/console"] == "runs\n"


def test_crash_image_is_checked_as_any_other(web, machine, place, key):
    (place / "server.py").write_text(MAIN)
    with pytest.raises(mk.ImageError, match="loads signed images only"):
        web.load("server.py", panic=True)
    sign("server.py", key)
    web.load("server.py", panic=True)
    assert [len(each.signature) for each in machine.view.images()] == [16]


def test_file_that_is_added_to_a_signed_package_or_directory_is_a_change(web, place, key):
    for name, spec in (("signed_parts", "signed_parts:main"), ("app", "./app")):
        (place / name).mkdir()
        for file in ("__init__.py", "__main__.py"):
            (place / name / file).write_text(MAIN)
        sign(spec, key)
        web.load(spec)
        (place / name / "data.txt").write_text("")
        assert refusal(web, spec) == "changed"


def test_signature_of_a_package_is_none_for_the_same_bytes_as_an_archive(web, place, key):
    """What a package is packed into is an archive that a pyz could be as well."""
    (place / "signed_twice").mkdir()
    for file in ("__init__.py", "__main__.py"):
        (place / "signed_twice" / file).write_text(MAIN)
    sign("./signed_twice", key)
    with image.read("./signed_twice") as read:
        (place / "twice.pyz").write_bytes(read.content())
    (place / "signed_twice.sig").rename(place / "twice.pyz.sig")
    assert refusal(web, "twice.pyz") == "kind"


def test_client_that_sends_another_signature_than_it_should_is_refused_by_the_host(web, machine, place, key):
    """The host looks for itself: at the sealed bytes that it was sent, and at the text beside them."""
    (place / "signed.py").write_text(MAIN)
    (place / "forged.py").write_text("def main(kernel):\n    print('forged')\n")
    text = Path(sign("signed.py", key)).read_text()
    with image.read("signed.py") as good, image.read("forged.py") as forged:
        fields = {"cmdline": "", "directory": "/", "initrd": None, "panic": False, "dry_run": False, "name": "web"}
        fields["instance"] = web.id
        for described, fd, signature in (
            (forged.describe(), forged.fd, text),
            (forged.describe() | {"digest": good.digest, "size": good.size}, forged.fd, text),
            (good.describe(), forged.fd, text),
            (good.describe(), good.fd, None),
            (good.describe() | {"kind": "pyz"}, good.fd, text),
            (forged.describe(), forged.fd, text.replace(good.digest, forged.digest)),
        ):
            request = fields | {"image": described, "signature": signature}
            with pytest.raises(mk.ImageError):
                machine._membership.request("load", request, fds=[fd])
        assert web.state == "ready"
        machine._membership.request("load", fields | {"image": good.describe(), "signature": text}, fds=[good.fd])
    assert web.state == "loaded"


def test_keys_are_those_that_were_there_when_the_machine_was_made(web, place, key, tmp_path):
    (place / "server.py").write_text(MAIN)
    keys.make(tmp_path / "trusted/later.key")
    sign("server.py", tmp_path / "trusted/later.key")
    assert refusal(web) == "untrusted"


def test_machine_that_checks_nothing_loads_what_it_is_given_and_says_so(place, key):
    (place / "server.py").write_text(MAIN)
    with mk.Machine(memory="16M") as machine:
        web = machine.create("web", memory="8M")
        web.load("server.py")
        assert [each.signature for each in machine.view.images()] == ["unsigned"]
        sign("server.py", key)
        (place / "server.py").write_text(MAIN + "#")
        web.load("server.py")
        assert [each.signature for each in machine.view.images()] == ["unchecked"]
        assert machine.view.machine().trusted == 0


def test_machine_without_a_key_to_trust_is_not_made(tmp_path):
    with pytest.raises(ValueError, match="no key in"):
        mk.Machine(verify=tmp_path)
    assert mk.machines() == []
