"""What pyproject.toml cannot say: how the C core is built, and for which Pythons a wheel is good."""

from __future__ import annotations

import os
import runpy

from setuptools import setup
from setuptools.command.build_ext import build_ext

build = runpy.run_path("multikernel/_core/build.py")


class BuildCore(build_ext):
    """The extensions, and what a native image is built with: libmultikernel.a, of the same objects, and a .pc file."""

    def run(self) -> None:
        """As build_ext, then the library beside the package's modules."""
        super().run()
        in_place = self.inplace or getattr(self, "editable_mode", False)
        directory = os.path.join("" if in_place else self.build_lib, "multikernel", "lib")
        objects = self.compiler.object_filenames(build["core_sources"](), output_dir=self.build_temp)
        os.makedirs(os.path.join(directory, "pkgconfig"), exist_ok=True)
        library = self.compiler.library_filename("multikernel", output_dir=directory)
        if os.path.exists(library):  # `ar` would add to it
            os.remove(library)
        self.compiler.create_static_lib(objects, "multikernel", output_dir=directory)
        with open(os.path.join(directory, "pkgconfig", "multikernel.pc"), "w") as file:
            file.write(build["pkg_config"](self.distribution.get_version()))


# One wheel serves every CPython from 3.11 on (stable ABI), but for a free-threaded build, which has none.
setup(
    cffi_modules=["multikernel/_core/build.py:ffibuilder"],
    ext_modules=build["extension"](),
    cmdclass={"build_ext": BuildCore},
    options={} if build["free_threaded"] else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
