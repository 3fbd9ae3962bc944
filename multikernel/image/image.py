"""`Image`: sealed content, and what it is."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from multikernel.errors import ImageError

from . import sealed

KINDS = ("script", "module", "pyz", "directory", "native")

MOST_IMPORTS = 200
"""Most modules that are listed as imported."""
_LONGEST_IMPORT = 200  # characters

MAX_IMAGE = 256 << 20
"""Most bytes that an image may have."""


@dataclass(eq=False)
class Image:
    """What an instance boots. Owns `fd` until it is closed; `with` works.

    Attributes:
        kind: "script", "pyz" or "native" (the file as it is), "module" (an archive of a top-level package or of one
            module) or "directory" (an archive of it).
        name: what is shown: as it was asked for.
        entry: the function to enter, seen from the module: "main", "Service.run".
        module: name of the module that has it.
        origin: where the content was read: the script, archive or directory, the module's file, or the package's
            (first) directory.
        digest: SHA-256 of the content, hex.
        size: bytes of the content.
        fd: a memfd with the content, sealed against every change; -1 once closed.
        path: what `sys.path` is in the instance; all absolute.
        imports: what it takes from the environment: "NAME VERSION" each, modules and before them the interpreter.
    """

    kind: str
    name: str
    entry: str
    module: str
    origin: str
    digest: str
    size: int
    fd: int
    path: list[str]
    imports: list[str] = field(default_factory=list)

    @classmethod
    def make(
        cls,
        content: bytes,
        *,
        kind: str,
        name: str,
        entry: str,
        module: str,
        origin: str,
        path: list[str],
        imports: Sequence[str] = (),
    ) -> Self:
        """Seal `content`.

        Raises:
            ImageError: it is larger than `MAX_IMAGE`.
            OSError: there is not enough memory for a copy.
        """
        if len(content) > MAX_IMAGE:
            raise ImageError(
                f"{name!r} has {len(content)} bytes; an image has at most {MAX_IMAGE}.",
                size=len(content),
                limit=MAX_IMAGE,
            )
        fd = sealed.seal(content, f"image:{name}", executable=kind == "native")
        digest = hashlib.sha256(content).hexdigest()
        return cls(kind, name, entry, module, origin, digest, len(content), fd, path, list(imports[:MOST_IMPORTS]))

    @classmethod
    def from_description(cls, description: Mapping[str, Any], fd: int) -> Self:
        """The image that another process described and passed `fd` for. Nothing in either is believed.

        Raises:
            ImageError: a field is missing or wrong, the descriptor is not sealed, or its content is not what the
                description says. `fd` is still the caller's then; otherwise it is the image's.
        """
        _check_description(description)
        image = cls(**description, fd=fd)
        image._check_content()
        return image

    def describe(self) -> dict[str, Any]:
        """All of it but the descriptor, for `from_description`; JSON can hold it."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name != "fd"}

    def content(self) -> bytes:
        """A copy of the content."""
        return sealed.read_fd(self.fd, self.size)

    def close(self) -> None:
        """Give the descriptor back. A second time does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_content(self) -> None:
        # The seals first: what is checked after them cannot change any more.
        if not sealed.is_sealed(self.fd):
            raise ImageError(f"the content of {self.name!r} is not sealed: it could change under whoever runs it")
        size = os.fstat(self.fd).st_size
        if size != self.size:
            raise ImageError(f"{self.name!r} has {size} bytes, and not the {self.size} of its description", size=size)
        digest = hashlib.sha256(self.content()).hexdigest()
        if digest != self.digest:
            raise ImageError(f"{self.name!r} has the digest {digest}, and not that of its description", digest=digest)


def _check_description(description: Mapping[str, Any]) -> None:
    """Refuse fields that are missing, unknown, of a wrong type or out of range."""
    wanted = [each.name for each in dataclasses.fields(Image) if each.name != "fd"]
    if set(description) != set(wanted):
        raise ImageError(f"the description of an image has {', '.join(wanted)}; this one: {', '.join(description)}")
    for name in ("kind", "name", "entry", "module", "origin", "digest"):
        text = description[name]
        if not isinstance(text, str) or not text or "\0" in text:
            raise ImageError(f"the description of an image has a wrong {name}: {text!r}")
    kind, entry, size, path = (description[name] for name in ("kind", "entry", "size", "path"))
    if kind not in KINDS:
        raise ImageError(f"there are no images of kind {kind!r}; there are {', '.join(KINDS)}", kinds=KINDS)
    if not all(part.isidentifier() for part in entry.split(".")):
        raise ImageError(f"{entry!r} cannot be the name of a function")
    if not isinstance(size, int) or not 0 <= size <= MAX_IMAGE:
        raise ImageError(f"an image has at most {MAX_IMAGE} bytes, not {size!r}", limit=MAX_IMAGE)
    if not isinstance(path, list) or not all(isinstance(each, str) for each in path):
        raise ImageError("the description of an image has a path that is no list of texts")
    imports = description["imports"]
    if not isinstance(imports, list) or len(imports) > MOST_IMPORTS or not all(map(_is_import, imports)):
        raise ImageError("the description of an image has imports that are no list of names and versions")


def _is_import(text: object) -> bool:
    return (
        isinstance(text, str)
        and len(text.split(" ")) == 2
        and text.isprintable()
        and "," not in text
        and len(text) <= _LONGEST_IMPORT
    )
