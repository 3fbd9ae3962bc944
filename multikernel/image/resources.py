"""The data files of packages in an image, for importlib.resources."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from importlib.resources.abc import Traversable, TraversableResources

from . import archive


class Resources(TraversableResources):
    """The files under `base`, a package's directory in the image ("pkg/sub").

    A zip archive is how the standard library knows files that have no path.
    """

    def __init__(self, files: Mapping[str, bytes], base: str) -> None:
        inside = {name[len(base) + 1 :]: data for name, data in files.items() if name.startswith(f"{base}/")}
        self._archive = zipfile.ZipFile(io.BytesIO(archive.pack(inside)))

    def files(self) -> Traversable:
        """The package's directory."""
        return zipfile.Path(self._archive)
