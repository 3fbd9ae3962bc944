"""Build the cffi module `multikernel._core._native` from csrc/ and the declarations in cdefs*.h.

Named by setup.py (`cffi_modules`). With MULTIKERNEL_SANITIZE=address,undefined in the environment the core is
built with those sanitizers.
"""

from __future__ import annotations

import os
from pathlib import Path

from cffi import FFI

here = Path(__file__).parent if "__file__" in globals() else Path("multikernel/_core")
root = here.parent.parent
sources = sorted(str(path.relative_to(root)) for path in (root / "csrc").glob("*.c"))
sanitize = os.environ.get("MULTIKERNEL_SANITIZE")
sanitizer_flags = [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"] if sanitize else []

ffibuilder = FFI()
for declarations in sorted(here.glob("cdefs*.h")):
    ffibuilder.cdef(declarations.read_text())
ffibuilder.set_source(
    "multikernel._core._native",
    (here / "shim.h").read_text(),
    sources=sources,
    include_dirs=[str(root / "csrc" / "include")],
    define_macros=[("_GNU_SOURCE", None)],
    extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", "-pthread", *sanitizer_flags],
    extra_link_args=["-pthread", *sanitizer_flags],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
