"""How the two halves of the binding are built: `_native` (cffi) from csrc/ and cdefs*.h, `_hot` from hot*.c.

setup.py puts the objects of csrc/ into a static library as well.

Named by setup.py. With MULTIKERNEL_SANITIZE=address,undefined in the environment both are built with those sanitizers.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from cffi import FFI
from setuptools import Extension

here = Path(__file__).parent if "__file__" in globals() else Path("multikernel/_core")
root = here.parent.parent
free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
sanitize = os.environ.get("MULTIKERNEL_SANITIZE")
sanitizer_flags = [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"] if sanitize else []
flags = ["-std=c11", "-O2", "-fvisibility=hidden", "-fno-plt", "-pthread", *sanitizer_flags]
links = ["-pthread", *sanitizer_flags]


def relative(paths: Iterable[Path]) -> list[str]:
    return sorted(os.path.relpath(path, root) for path in paths)


def core_sources() -> list[str]:
    return relative((root / "csrc").glob("*.c"))


def pkg_config(version: str) -> str:
    """multikernel.pc, for whatever directory the package lies in."""
    return "\n".join(
        [
            "prefix=${pcfiledir}/../..",
            "Name: multikernel",
            "Description: The C core of multikernel: what native images are built with",
            f"Version: {version}",
            "Cflags: -I${prefix}/include",
            "Libs: -L${prefix}/lib -lmultikernel -pthread",
            "",
        ]
    )


ffibuilder = FFI()
for declarations in sorted(here.glob("cdefs*.h")):
    ffibuilder.cdef(declarations.read_text())
ffibuilder.set_source(
    "multikernel._core._native",
    "\n".join(shim.read_text() for shim in sorted(here.glob("shim*.h"))),  # shim.h first: "." comes before "_"
    sources=core_sources(),
    include_dirs=["csrc/include", "multikernel/_core"],
    define_macros=[("_GNU_SOURCE", None)],
    extra_compile_args=flags,
    extra_link_args=links,
)


def docstrings() -> str:
    """The C methods' docstrings, from calls.py: a macro for each, with its signature in front."""
    lines = []
    classes = [node for node in ast.parse((here / "calls.py").read_text()).body if isinstance(node, ast.ClassDef)]
    for kind in classes:
        for call in kind.body:
            if not isinstance(call, ast.FunctionDef) or call.name.startswith("_"):
                continue
            for argument in (*call.args.posonlyargs, *call.args.args, *call.args.kwonlyargs):
                argument.annotation = None
            signature = "(" + ast.unparse(call.args).replace("self", "$self", 1) + ")"
            text = f"{call.name}{signature}\n--\n\n{ast.get_docstring(call)}"
            lines.append(f"#define DOC_{kind.name}_{call.name} {json.dumps(text)}\n")
    return "".join(lines)


def extension() -> list[Extension]:
    """The extension, with the stable ABI but on a free-threaded build; none on other interpreters than CPython."""
    if sys.implementation.name != "cpython":
        return []
    (here / "hot_docs.h").write_text(docstrings())
    limited = [] if free_threaded else [("Py_LIMITED_API", "0x030b0000")]
    return [
        Extension(
            "multikernel._core._hot",
            sources=relative(here.glob("hot*.c")),
            depends=relative([*here.glob("*.h"), *(root / "csrc/include/multikernel").glob("*.h")]),
            include_dirs=["csrc/include", "multikernel/_core"],
            define_macros=[("_GNU_SOURCE", None), ("MK_API", ""), *limited],
            extra_compile_args=[*flags, "-Wall", "-Wextra", "-Werror"],
            extra_link_args=links,
            py_limited_api=not free_threaded,
        )
    ]


if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
