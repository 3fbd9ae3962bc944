"""The manifest: what the host hands to a booting instance, in words.

The descriptors that go with it are `multikernel.kernel.protocol.Descriptors`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Manifest:
    """Who an incarnation is, and what it was given."""

    id: int
    """Of the instance, 1 to 511."""
    name: str
    epoch: int
    """Which incarnation this is: 1 for the first boot."""
    machine: str
    """The machine's name."""
    cpus: tuple[int, ...]
    """The cpus that are its own, sorted."""
    memory: int
    """Its budget, bytes."""
    cmdline: str
    """What `load` was given for it."""
    directory: str
    """The working directory of whoever loaded the image; relative paths are meant from there."""
    image: Mapping[str, Any]
    """`Image.describe()`: all of the image but its content."""
    core: bool = False
    """Whether it stays dumpable."""
    takes_over: bool = False
    """Whether it is handed links of the incarnation before: see "resume" in `multikernel.kernel.protocol`."""
    extras: tuple[str, ...] = ()
    """Names of the descriptors that follow those of `Descriptors`, in their order."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"cpus": list(self.cpus), "extras": list(self.extras)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The manifest that `to_json` wrote.

        Raises:
            ValueError: a field is missing, unknown, or not of its type.
        """
        types = {
            "core": bool,
            "takes_over": bool,
            "id": int,
            "epoch": int,
            "memory": int,
            "cpus": list,
            "image": dict,
            "extras": list,
        }
        names = [field.name for field in dataclasses.fields(cls)]
        if set(document) != set(names):
            raise ValueError(f"a manifest has the fields {', '.join(names)}; this one: {', '.join(map(str, document))}")
        for name in names:
            wanted = types.get(name, str)
            if not isinstance(document[name], wanted):
                raise ValueError(f"manifest: {name} is {document[name]!r}, not of type {wanted.__name__}")
        return cls(**{**document, "cpus": tuple(document["cpus"]), "extras": tuple(document["extras"])})
