"""`kimages`: the images that are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multikernel.proc.words import line, word

if TYPE_CHECKING:
    from multikernel.proc.reader import Reader
    from multikernel.shm.pages import ImageRecord

NONE = "No kimages loaded\n"
_ROW = "{:>5}  {:<10}  {:>10}  {:<64}  {:>5}  {}\n"


def values(reader: Reader) -> list[dict[str, Any]]:
    """An image each, by id; instances: names of those that have it loaded."""
    records = reader.records()
    return [
        of(image) | {"instances": [record.name for record in records if record.image == image.id]}
        for image in reader.images()
    ]


def text(reader: Reader) -> str:
    """A table in the form of the multikernel tree's /proc/kimage."""
    images = reader.images()
    if not images:
        return NONE
    head = _ROW.format("MK_ID", "Type", "Size", "Digest", "Users", "Name")
    rule = "  ".join("-" * width for width in (5, 10, 10, 64, 5, 4)) + "\n"
    return head + rule + "".join(_row(image) for image in images)


def of(image: ImageRecord) -> dict[str, Any]:
    """What there is to say of one image. size: bytes; digest: SHA-256, hex; users: instances that have it loaded."""
    return {
        "id": image.id,
        "kind": image.kind,
        "size": image.size,
        "digest": image.digest,
        "users": image.users,
        "name": image.name,
    }


def _row(image: ImageRecord) -> str:
    return _ROW.format(image.id, word(image.kind), image.size, word(image.digest), image.users, line(image.name))
