"""What a user installs: `pip install .` gives a package that runs without this checkout, with its headers and types."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import multikernel as mk

ROOT = Path(__file__).resolve().parent.parent
HEADERS = sorted(path.name for path in (ROOT / "csrc/include/multikernel").glob("*.h"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """The unpacked source distribution, made from a copy: building leaves files in the tree it builds."""
    copy = tmp_path_factory.mktemp("copy") / "multikernel"
    made = (
        ".git",
        ".venv",
        "build",
        "dist",
        "*.egg-info",
        "__pycache__",
        "*.so",
        "*.o",
        "*.a",
        "*.pc",
        ".*_cache",
        ".hypothesis",
    )
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*made))
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, copy.parent / "dist", cwd=copy)
    (archive,) = (copy.parent / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from 3.11.4 on
        tar.extractall(copy.parent / "unpacked", **safely)
    (unpacked,) = (copy.parent / "unpacked").iterdir()
    return unpacked


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-build-isolation"]
    run(*pip, "--no-deps", "--no-index", "--wheel-dir", out, ".", cwd=sdist)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel installed, its dependencies taken from the environment of this run."""
    venv = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv.parent)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", venv / "bin/python", "install"]
    run(*pip, "--quiet", "--no-deps", "--no-index", wheel, cwd=venv.parent)
    (site,) = venv.glob("lib/python3*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("platlib") + "\n")
    return venv


def test_the_wheel_holds_the_package_its_core_headers_and_types_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {f"multikernel/include/multikernel/{header}" for header in HEADERS} <= names
    assert {"multikernel/py.typed", "multikernel/_core/_native.pyi"} <= names
    assert {"multikernel/lib/libmultikernel.a", "multikernel/lib/pkgconfig/multikernel.pc"} <= names
    assert len([name for name in names if name.endswith(".so")]) == 2
    assert all(name.startswith("multikernel/") for name in names)
    python = {str(path.relative_to(ROOT)) for path in (ROOT / "multikernel").rglob("*.py")}
    assert python <= names


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="a free-threaded Python has no stable ABI"
)
def test_one_wheel_is_good_for_every_python_from_3_11_on(wheel):
    assert "-cp311-abi3-linux" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        built = {name for name in archive.namelist() if name.endswith(".so")}
    assert built == {"multikernel/_core/_hot.abi3.so", "multikernel/_core/_native.abi3.so"}


def test_an_installed_package_runs_without_the_checkout(fresh, tmp_path):
    script = run(fresh / "bin/multikernel", "--help", cwd=tmp_path)
    module = run(fresh / "bin/python", "-m", "multikernel", "--help", cwd=tmp_path)
    assert "create" in script
    assert "create" in module
    where = run(fresh / "bin/python", "-Ic", "import multikernel; print(multikernel.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(fresh)


def test_the_version_is_the_same_everywhere(fresh, tmp_path):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    ask = "import multikernel, importlib.metadata as m; print(multikernel.__version__, m.version('multikernel'))"
    assert run(fresh / "bin/python", "-Ic", ask, cwd=tmp_path).split() == [version, version]


def test_an_installed_ring_carries_a_message(fresh, tmp_path):
    send = "import multikernel as mk; r = mk.Ring('64K'); t, x = r.sender(), r.receiver(); t.send(b'hello')"
    assert (
        run(fresh / "bin/python", "-Ic", f"{send}; print(x.recv(timeout=5)); t.close(); x.close()", cwd=tmp_path)
        == "b'hello'\n"
    )


@pytest.mark.parametrize("header", HEADERS)
def test_each_installed_header_stands_on_its_own(fresh, tmp_path, header):
    (include,) = fresh.glob("lib/python3*/site-packages/multikernel/include")
    (tmp_path / "image.c").write_text(f"#include <multikernel/{header}>\nint main(void) {{ return 0; }}\n")
    run("cc", "-std=c11", "-Wall", "-Werror", f"-I{include}", "-c", "image.c", cwd=tmp_path)


@pytest.mark.parametrize("header", ["kernel.h", "message.h"])
def test_the_headers_of_an_image_are_for_cpp_too(fresh, tmp_path, header):
    (include,) = fresh.glob("lib/python3*/site-packages/multikernel/include")
    (tmp_path / "image.cpp").write_text(f"#include <multikernel/{header}>\nint main() {{ return 0; }}\n")
    run("c++", "-std=c++11", "-Wall", "-Wextra", "-Werror", f"-I{include}", "-c", "image.cpp", cwd=tmp_path)


BOOT = """
import multikernel as mk, sys
with mk.Machine(memory="64M") as machine:
    web = machine.create("web", memory="16M")
    web.load(sys.argv[1])
    web.boot(timeout=30)
    with machine.connect("web", capacity="64K") as link:
        print(link.request(b"hello", timeout=30).payload)
"""


@pytest.mark.parametrize("by", ["the package", "pkg-config"])
def test_a_native_image_is_built_with_what_is_installed(fresh, tmp_path, by):
    ask = "import multikernel as mk; print(mk.get_include(), mk.get_library())"
    include, library = run(fresh / "bin/python", "-Ic", ask, cwd=tmp_path).split()
    if by == "the package":
        flags = [f"-I{include}", library, "-pthread"]
    elif shutil.which("pkg-config") is None:
        pytest.skip("pkg-config is not installed")
    else:
        where = {"PKG_CONFIG_PATH": str(Path(library).parent / "pkgconfig"), "PATH": os.environ["PATH"]}
        command = ["pkg-config", "--cflags", "--libs", "multikernel"]
        flags = subprocess.run(command, env=where, capture_output=True, text=True, check=True).stdout.split()
        version = subprocess.run([command[0], "--modversion", command[-1]], env=where, capture_output=True, check=True)
        assert version.stdout.decode().strip() == mk.__version__
    run("cc", ROOT / "examples/native/echo.c", *flags, "-o", "echo", cwd=tmp_path)
    assert run(fresh / "bin/python", "-Ic", BOOT, f"{tmp_path}/echo", cwd=tmp_path) == "b'hello'\n"
