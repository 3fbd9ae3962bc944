"""What pyproject.toml cannot say: how the C core is built, and for which Pythons a wheel is good."""

from __future__ import annotations

import sysconfig

from setuptools import setup

# One wheel serves every CPython from 3.11 on (stable ABI), but for a free-threaded build, which has none.
free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

setup(
    cffi_modules=["multikernel/_core/build.py:ffibuilder"],
    options={} if free_threaded else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
