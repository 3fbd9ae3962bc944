"""Inside an instance: import the image from its sealed bytes.

Its modules come from the image and from nowhere else, but for extension modules, which stayed in the environment.
Their code is named `image:pkg/module.py`, so a traceback shows the source that was loaded and not what the file says
by now. `__file__` is where the file was, for programs that find their data by it; importlib.resources reads what is
in the image.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder, ModuleSpec, PathFinder
from importlib.util import decode_source
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from multikernel.errors import ImageError

from . import archive, pyz
from .source import MAIN_MODULE, file_of
from .tops import is_the_instances, tops

if TYPE_CHECKING:
    from .image import Image
    from .resources import Resources


def enter(image: Image) -> Callable[..., Any]:
    """Import the image's module, and find the function to enter. Changes this process's imports for good.

    Raises:
        ImageError: the content is damaged, or the module has no such function.
        BaseException: whatever the module raises while it is imported.
    """
    files = _files(image)
    several = image.kind in ("pyz", "directory")
    names = tops(files) | {MAIN_MODULE} if several else {image.module.partition(".")[0]}
    sys.path[:] = image.path
    sys.path_importer_cache.clear()  # what directories held when the zygote looked
    for top in names:
        _forget(top)
    parents = [image.origin] if several else _parents(image)
    sys.meta_path.insert(0, ImageImporter(files, names, image.origin, parents))
    __import__(image.module)
    return _function(sys.modules[image.module], image)


class ImageImporter(MetaPathFinder, InspectLoader):
    """Finds and loads the modules of one image: nothing else has a say about what lies under `names`.

    Args:
        files: source and data by relative path, "pkg/module.py".
        names: the top-level packages and modules.
        origin: where they were in the environment: the file of the only one, or a directory, or an archive.
        parents: the directories of the environment that have them.
    """

    def __init__(self, files: Mapping[str, bytes], names: set[str], origin: str, parents: Sequence[str]) -> None:
        self._files = files
        self._names = names
        self._origin = origin
        self._parents = parents

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - where else to look: nowhere
        target: ModuleType | None = None,  # noqa: ARG002 - a reload finds what a load does
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`. ModuleNotFoundError for what should be in the image and is not."""
        if fullname.partition(".")[0] not in self._names:
            return self._extension_beside(fullname)
        name = file_of(fullname, self._files)
        extension = None if name else self._extension(fullname)
        if extension is not None:
            return extension
        if name is None and not self._is_namespace(fullname):
            raise ModuleNotFoundError(f"there is no module {fullname!r} in the image", name=fullname)
        package = self.is_package(fullname)
        spec = ModuleSpec(fullname, self, origin=f"image:{name}" if name else None, is_package=package)
        if package:
            base = _base(fullname)
            spec.submodule_search_locations = [os.path.join(parent, base) for parent in self._parents]
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty module that knows where its file was."""
        # Not around exec_module(): its frame would stand between those that Python takes out of tracebacks.
        module = ModuleType(spec.name)
        name = file_of(spec.name, self._files)
        if name is not None:
            module.__file__ = self._environment(name)
        return module

    def is_package(self, fullname: str) -> bool:
        """Whether it is a package, with or without code."""
        name = file_of(fullname, self._files)
        return name is None or name.endswith("/__init__.py")

    def get_source(self, fullname: str) -> str | None:
        """The source as it was loaded: what tracebacks show."""
        name = file_of(fullname, self._files)
        return None if name is None else decode_source(self._files[name])

    def get_code(self, fullname: str) -> CodeType:
        """The module's code, compiled from the sealed source; a namespace package has none. Nothing is cached."""
        name = file_of(fullname, self._files)
        return self.source_to_code(self._files[name] if name else b"", f"image:{name or _base(fullname)}")

    def get_data(self, path: str) -> bytes:
        """A file of the image, by where it would be in the environment: what `pkgutil.get_data` reads with."""
        for parent in self._parents:
            name = os.path.relpath(path, parent)
            if name in self._files:
                return self._files[name]
        raise FileNotFoundError(errno.ENOENT, "it is not in the image", path)

    def get_resource_reader(self, fullname: str) -> Resources | None:
        """What importlib.resources reads a package's data with."""
        from .resources import Resources

        return Resources(self._files, _base(fullname)) if self.is_package(fullname) else None

    def _is_namespace(self, fullname: str) -> bool:
        return any(name.startswith(f"{_base(fullname)}/") for name in self._files)

    def _extension_beside(self, fullname: str) -> ModuleSpec | None:
        """An extension module at the top of a directory that is the image: it stayed in the environment."""
        if "." in fullname or MAIN_MODULE not in self._names:
            return None
        return self._extension(fullname)

    def _extension(self, fullname: str) -> ModuleSpec | None:
        base = _base(fullname)
        for parent in self._parents:
            finder = FileFinder(os.path.dirname(os.path.join(parent, base)), (ExtensionFileLoader, EXTENSION_SUFFIXES))
            spec = finder.find_spec(fullname)
            if spec is not None and spec.loader is not None:
                return spec
        return None

    def _environment(self, name: str) -> str:
        """Where the file `name` of the image is, or was."""
        if self._names == {name.removesuffix(".py")}:
            return self._origin
        candidates = [os.path.join(parent, name) for parent in self._parents]
        return next((each for each in candidates if os.path.exists(each)), candidates[0])


def _base(fullname: str) -> str:
    return fullname.replace(".", "/")


def _forget(top: str) -> None:
    """Drop what was imported under the image's name before the fork: the environment's version, not the image's.

    But not what this process itself runs on, of which there must not be two.
    """
    if is_the_instances(top) or top not in sys.modules:  # a look at each would write into the page of its name
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == top]:
        del sys.modules[name]


def _files(image: Image) -> Mapping[str, bytes]:
    """Source and data by their name in the image."""
    content = image.content()
    if image.kind == "script":
        return {f"{image.module}.py": content}
    return pyz.unpack(content) if image.kind == "pyz" else archive.unpack(content)


def _parents(image: Image) -> list[str]:
    """The directories of the environment that have the image's top-level module: several for a namespace package."""
    top = image.module.partition(".")[0]
    spec = PathFinder.find_spec(top, image.path) if image.kind == "module" else None
    found = (spec.submodule_search_locations if spec else None) or [image.origin]
    return list(dict.fromkeys(os.path.dirname(os.path.abspath(each)) for each in [image.origin, *found]))


def _function(module: ModuleType, image: Image) -> Callable[..., Any]:
    found: object = module
    for part in image.entry.split("."):
        found = getattr(found, part, None)
    if callable(found):
        return found
    there = tuple(
        name
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    )
    what = (
        f"no function {image.entry!r}"
        if found is None
        else f"{image.entry!r} is of type {type(found).__name__}, no function"
    )
    raise ImageError(
        f"{what} in {image.name!r}: it has {', '.join(there) or 'none'}.", entry=image.entry, functions=there
    )
