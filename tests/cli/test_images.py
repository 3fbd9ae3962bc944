"""The commands, where they are about images."""

from __future__ import annotations

import pytest

from multikernel.cli import images


@pytest.mark.parametrize("verb", [("run", "image.py"), ("load", "web", "image.py")], ids=lambda verb: verb[0])
def test_an_open_quote_in_a_command_line_is_a_mistake_in_the_command(cli, verb):
    ran = cli(*verb, "--cmdline", 'name="two words', status=2)
    assert 'never closed, at character 6: "two words' in ran.err
    assert ran.err.count("\n") == 1


MAIN = "def main(kernel):\n    return 0\n"
READS = "def main(kernel):\n    print(bytes(kernel.initrd['a']).decode(), 'quiet' in kernel.params)\n"


def test_a_run_and_a_load_take_an_initrd_by_path(cli, program, directory):
    (directory / "reads.py").write_text(READS)
    (directory / "data").mkdir()
    (directory / "data/a").write_text("given")
    assert cli("run", "reads.py", "--initrd", "data", "--cmdline", "quiet").out == "given True\n"
    ran = cli("run", "reads.py", "--initrd", "/dev/null", status=6)
    assert "cannot load the initrd /dev/null: it is a character device" in ran.err
    assert "cannot load the initrd nothing" in cli("run", "reads.py", "--dry-run", "--initrd", "nothing", status=6).err
    program("init", "-M", "one", "--memory", "64M")
    try:
        cli("create", "web")
        assert cli("load", "web", "reads.py", "-i", "data", "--dry-run", "--json").document["initrd"] == "data"
        assert cli("load", "web", "reads.py", "-i", "data", "--json").document["initrd"] == "data"
        cli("load", "web", "reads.py", "-i", "nothing", status=6)
        cli("start", "web")
    finally:
        cli("shutdown", "-M", "one")


def test_show_lists_the_images_with_who_has_and_who_runs_them(cli, program, directory):
    (directory / "serves.py").write_text("import numpy\ndef main(kernel):\n    for _ in kernel.messages(): pass\n")
    program("init", "-M", "one", "--memory", "64M")
    try:
        assert "no images" in cli("show", "--images").err
        for name in ("web", "db"):
            cli("create", name, "--shared", "--memory", "16M")
            cli("load", name, "serves.py")
        cli("start", "web")
        [image] = cli("show", "--images", "--json").document["images"]
        assert (image["kind"], image["name"], image["signature"]) == ("script", "serves.py", "unsigned")
        assert (image["instances"], image["running"]) == (["web", "db"], ["web"])
        assert [each["name"] for each in image["imports"]] == ["python", "numpy"]
        header, row = cli("show", "--images").out.splitlines()
        assert header.split()[:4] == ["ID", "KIND", "SIZE", "DIGEST"]
        assert f"{image['digest'][:12]}  unsigned   web, db    web     serves.py  python 3." in row
        assert cli("show", "db", "--json").document["instance"]["image"]["signature"] == "unsigned"
        assert "--images shows those of the machine" in cli("show", "web", "--images", status=2).err
        assert "it is active" in cli("unload", "web", status=1).err
    finally:
        cli("shutdown", "-M", "one")


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("web.py", "web"),
        ("dir/web.py:main", "web"),
        ("dir/my.web.py", "my.web"),
        ("pkg.web", "web"),
        ("pkg.web:Server.run", "web"),
        ("web", "web"),
        ("web.pyz", "web"),
        ("dir/web.pyz:main", "web"),
        ("./web", "web"),
        ("dir/web/", "web"),
        ("./dir/../web", "web"),
    ],
)
def test_a_run_names_the_instance_after_the_image(spec, name):
    assert images.name_of(spec) == name


def test_a_dry_load_is_refused_as_a_real_one(cli, program, directory):
    """Also for what only the host knows: the keys, and what else the instance has."""
    (directory / "large.py").write_text(f"{MAIN}{'#' * 1_000_000}\n")
    (directory / "server.py").write_text(MAIN)
    (directory / "trusted").mkdir()
    cli("sign", "--new-key", "--key", "release.key", "large.py")
    (directory / "release.key.pub").rename(directory / "trusted/release.pub")
    program("init", "-M", "one", "--memory", "64M", "--verify", "trusted")
    try:
        cli("create", "web", "--memory", "1M")
        for dry in ([], ["--dry-run"]):
            assert "loads signed images only" in cli("load", "web", "server.py", *dry, status=6).err
            assert "does not fit into 'web'" in cli("load", "web", "large.py", *dry, status=6).err
        cli("sign", "server.py", "--key", "release.key")
        assert "would load server.py into web" in cli("load", "web", "server.py", "--dry-run").err
        shown = cli("show", "web", "--json").document["instance"]
        assert (shown["state"], shown["image"]) == ("ready", None)
    finally:
        cli("shutdown", "-M", "one")


def test_a_dry_run_is_refused_as_a_real_one(cli, program, directory):
    """The host of the machine that there is knows the keys; without one, one would be made that trusts anybody."""
    (directory / "large.py").write_text(f"{MAIN}{'#' * 1_000_000}\n")
    (directory / "server.py").write_text(MAIN)
    (directory / "trusted").mkdir()
    cli("sign", "--new-key", "--key", "release.key")
    (directory / "release.key.pub").rename(directory / "trusted/release.pub")
    large = ("run", "web", "large.py", "--memory", "1M")
    assert "does not fit into 'web'" in cli(*large, "--dry-run", status=6).err
    assert "at most 4096" in cli("run", "server.py", "--cmdline", "a" * 5000, "--dry-run", status=5).err
    assert "would run server.py" in cli("run", "server.py", "--dry-run").err
    program("init", "-M", "one", "--memory", "64M", "--verify", "trusted")
    try:
        for dry in ([], ["--dry-run"]):
            assert "loads signed images only" in cli("run", "server.py", *dry, status=6).err
        cli("sign", "server.py", "--key", "release.key")
        cli("sign", "large.py", "--key", "release.key")
        for dry in ([], ["--dry-run"]):
            assert "does not fit into 'web'" in cli(*large, *dry, status=6).err
            assert "at most 4096" in cli("run", "server.py", "--cmdline", "a" * 5000, *dry, status=5).err
        assert "would run server.py as server" in cli("run", "server.py", "--dry-run").err
        assert cli("show", "--json").document["instances"] == []
    finally:
        cli("shutdown", "-M", "one")


# --- signatures


def test_an_image_is_signed_and_a_machine_that_verifies_loads_it_and_nothing_else(cli, program, directory):
    (directory / "server.py").write_text(MAIN)
    (directory / "trusted").mkdir()
    ran = cli("sign", "--new-key", "--key", "release.key")
    assert ran.err == "made release.key and release.key.pub\n"
    (directory / "release.key.pub").rename(directory / "trusted/release.pub")
    made = cli("sign", "server.py", "--key", "release.key", "--json").document
    assert (made["kind"], made["signature"], made["public_key"]) == ("script", f"{directory}/server.py.sig", None)
    assert made["dry_run"] is False
    assert f"key: {made['key']}" in (directory / "server.py.sig").read_text()
    program("init", "-M", "one", "--memory", "64M", "--verify", "trusted")
    try:
        assert "; signed images only, by 1 key\n" in cli("show").out
        assert cli("show", "--json").document["trusted_keys"] == 1
        cli("create", "web")
        cli("load", "web", "server.py")
        assert cli("show", "web", "--json").document["instance"]["image"]["signature"] == made["key"]
        (directory / "server.py").write_text(MAIN + "#")
        error = cli("load", "web", "server.py", "--json", status=6).document["error"]
        assert (error["type"], error["fields"]["reason"]) == ("ImageError", "changed")
        (directory / "server.py.sig").unlink()
        assert "Sign it: multikernel sign server.py --key KEY." in cli("load", "web", "server.py", status=6).err
    finally:
        cli("shutdown", "-M", "one")


def test_sign_leaves_things_alone_where_it_only_tries_or_is_refused(cli, directory):
    (directory / "server.py").write_text(MAIN)
    assert "would make k and k.pub" in cli("sign", "--new-key", "--key", "k", "--dry-run").err
    assert [each.name for each in directory.iterdir()] == ["server.py"]
    cli("sign", "--new-key", "--key", "k", "server.py", "-o", "elsewhere.sig")
    assert "no key is overwritten" in cli("sign", "--new-key", "--key", "k", status=1).err
    assert "no key is overwritten" in cli("sign", "--new-key", "--key", "k", "--dry-run", status=1).err
    before = {each.name: each.read_bytes() for each in directory.iterdir()}
    assert set(before) == {"server.py", "k", "k.pub", "elsewhere.sig"}
    assert "would sign server.py with the key" in cli("sign", "server.py", "--key", "k", "--dry-run").err
    assert "no file" in cli("sign", "nothing.py", "--key", "k", status=6).err
    assert "is no private key in PEM" in cli("sign", "server.py", "--key", "k.pub", status=2).err
    assert "cannot be read" in cli("sign", "server.py", "--key", "nothing", status=2).err
    assert "No such file" in cli("sign", "server.py", "--key", "k", "-o", "nowhere/x.sig", status=1).err
    assert "which image?" in cli("sign", "--key", "k", status=2).err
    assert "--hash means nothing here" in cli("sign", "server.py", "--key", "k", "--hash", "md5", status=2).err
    assert {each.name: each.read_bytes() for each in directory.iterdir()} == before


def test_a_machine_is_not_made_without_keys_to_trust(cli, directory):
    (directory / "empty").mkdir()
    for dry in ([], ["--dry-run"]):
        ran = cli("init", "-M", "one", "--verify", "empty", *dry, status=2)
        assert "there is no key in empty" in ran.err
        assert ran.err.count("\n") == 1
    cli("show", status=3)
