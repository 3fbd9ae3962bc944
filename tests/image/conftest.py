"""Trees of source to load, and a process of its own to enter what was loaded: imports are for good."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from multikernel.image import Image

# What an instance does at boot: the image arrives as a description and a descriptor.
CHILD = """
import json, sys, traceback
{before}
from multikernel.image.image import Image
from multikernel.image.load import enter
image = Image.from_description(json.loads(sys.argv[1]), int(sys.argv[2]))
{confine}
try:
    main = enter(image)
    image.close()
    print(main(None))
except BaseException:
    traceback.print_exc()
    sys.exit(1)
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write files under a directory of the test's own, which is what it returns."""

    def write_all(files: dict[str, str | bytes], under: str = "") -> Path:
        root = tmp_path / under
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return root

    return write_all


@pytest.fixture
def enter() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Enter an image in a new process, which prints what its function returns."""

    def enter(image: Image, *, before: str = "", confine: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable,
                "-c",
                CHILD.format(before=before, confine=confine),
                json.dumps(image.describe()),
                str(image.fd),
            ],
            pass_fds=[image.fd],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return enter


@pytest.fixture
def run(enter) -> Callable[[Image], str]:
    """What the image's function returns, as text; the image is closed. A failure is the test's."""

    def run(image: Image, **how: str) -> str:
        with image:
            result = enter(image, **how)
        assert result.returncode == 0, result.stderr
        return result.stdout.removesuffix("\n")

    return run
