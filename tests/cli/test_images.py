"""The commands, where they are about images."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("verb", [("run", "image.py"), ("load", "web", "image.py")], ids=lambda verb: verb[0])
def test_an_open_quote_in_a_command_line_is_a_mistake_in_the_command(cli, verb):
    ran = cli(*verb, "--cmdline", 'name="two words', status=2)
    assert 'never closed, at character 6: "two words' in ran.err
    assert ran.err.count("\n") == 1


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
