"""`Found`: what was read for an image of Python source, before it is checked and sealed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .environment import versions
from .image import Image
from .source import Source


@dataclass(frozen=True, slots=True)
class Found:
    """As `Image`, with the files that its content has.

    Attributes:
        content: what is to be sealed.
        files: source and data by their name in the image.
        module: name of the module to enter, as the instance imports it.
    """

    kind: str
    name: str
    entry: str
    module: str
    origin: str
    path: list[str]
    content: bytes
    files: Mapping[str, bytes]

    def seal(self, *, search_hooks: bool) -> Image:
        """The image.

        Args:
            search_hooks: ask the import hooks of this process for the versions of what it imports, too.

        Raises:
            ImageError: the module to enter does not parse, or has no such function; or it is all too large.
            OSError: there is not enough memory for a copy.
        """
        source = Source(self.files, self.name)
        source.check_entry(self.module, self.entry)
        return Image.make(
            self.content,
            kind=self.kind,
            name=self.name,
            entry=self.entry,
            module=self.module,
            origin=self.origin,
            path=self.path,
            imports=versions(source.imports(self.module), self.path, search_hooks=search_hooks),
        )
