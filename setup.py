"""What pyproject.toml cannot say: how the C core is built, and for which Pythons a wheel is good."""

from __future__ import annotations

import runpy

from setuptools import setup

build = runpy.run_path("multikernel/_core/build.py")

# One wheel serves every CPython from 3.11 on (stable ABI), but for a free-threaded build, which has none.
setup(
    cffi_modules=["multikernel/_core/build.py:ffibuilder"],
    ext_modules=build["extension"](),
    options={} if build["free_threaded"] else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
