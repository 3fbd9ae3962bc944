"""Files that somebody writes to while they are read for an image: what is sealed is one state, or it is refused."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from multikernel.errors import ImageError
from multikernel.image import read

MAIN = "def main(kernel):\n    return 'whole'\n"

# The interpreter says that a file is about to be opened; what happens then happens at that very moment.
CHANGER = """
import os, sys
from multikernel.errors import ImageError
from multikernel.image import read
done = []
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("last.py") and not done:
        done.append(True)
        {change}
sys.addaudithook(hook)
try:
    read("./app", directory=sys.argv[1])
except ImageError as error:
    print(error)
assert done
"""


@pytest.mark.parametrize(
    "change",
    [
        "open('app/__main__.py', 'a').write('# more')",
        "os.rename('app/__main__.py', 'app/a.py')",
        "os.replace('other.py', 'app/__main__.py')",
        "open('app/zzz.py', 'w')",
        "os.unlink('app/__main__.py')",
    ],
    ids=["written", "renamed", "replaced", "added", "removed"],
)
def test_directory_that_changes_while_it_is_read_is_refused(write, change):
    root = write({"app/__main__.py": MAIN, "app/last.py": "", "other.py": MAIN})
    program = [sys.executable, "-c", CHANGER.format(change=change), str(root)]
    said = subprocess.run(program, cwd=root, capture_output=True, text=True, timeout=30, check=True).stdout
    assert said == f"cannot load './app': {root}/app changed while it was read. Load it again when it is written.\n"


@pytest.mark.parametrize("change", [lambda file: file.write(b"# more"), lambda file: file.truncate(3)])
def test_file_that_changes_while_it_is_read_is_refused(write, monkeypatch, change):
    root = write({"server.py": MAIN})
    pread = os.pread

    def writing(fd, count, position):
        part = pread(fd, count, position)
        if position == 0:
            with open(root / "server.py", "ab") as file:
                change(file)
        return part

    monkeypatch.setattr(os, "pread", writing)
    with pytest.raises(ImageError, match=r"server\.py changed while it was read\. Load it again when it is written\."):
        read("server.py", directory=str(root))


def test_file_that_is_replaced_while_it_is_read_is_the_old_one_whole(write, run, monkeypatch):
    root = write({"server.py": MAIN, "new.py": "def main(kernel):\n    return 'new'\n"})
    pread = os.pread

    def replacing(fd, count, position):
        if (root / "new.py").exists():
            os.replace(root / "new.py", root / "server.py")
        return pread(fd, count, position)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", replacing)
        image = read("server.py", directory=str(root))
    assert run(image) == "whole"
