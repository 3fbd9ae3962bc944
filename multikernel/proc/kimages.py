"""`kimages`: the images that are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multikernel.proc.words import line, table, word

if TYPE_CHECKING:
    from multikernel.proc.reader import Reader
    from multikernel.shm.pages import ImageRecord, InstanceRecord

NONE = "No kimages loaded\n"
_HEAD = ("MK_ID", "Type", "Size", "Digest", "Signature", "Loaded", "Running", "Imports", "Name")
_LEFT = ("Type", "Digest", "Signature", "Loaded", "Running", "Imports", "Name")


def values(reader: Reader) -> list[dict[str, Any]]:
    """An image each, by id; instances: names of those that have it loaded; running: of those that run it now."""
    records = reader.records()
    return [
        of(image)
        | {
            "instances": [
                record.name for record in records if image.id in (record.image, record.supervised.crash_image)
            ],
            "running": [record.name for record in records if record.pid and _runs(record) == image.id],
        }
        for image in reader.images()
    ]


def _runs(record: InstanceRecord) -> int:
    """The id of the image that its process runs."""
    return record.supervised.crash_image if record.supervised.crashed else record.image


def text(reader: Reader) -> str:
    """A table in the form of the multikernel tree's /proc/kimage."""
    images = values(reader)
    if not images:
        return NONE
    rule = ["-" * len(header) for header in _HEAD]
    return table(_HEAD, [rule, *map(_row, images)], _LEFT)


def of(image: ImageRecord) -> dict[str, Any]:
    """What there is to say of one image.

    size: bytes; digest: SHA-256, hex; signature: id of the key by which it is signed, "unsigned", or "unchecked" where
    the machine checks none; users: how many instances have it loaded; imports: modules of the environment, and their
    versions
    """
    return {
        "id": image.id,
        "kind": image.kind,
        "size": image.size,
        "digest": image.digest,
        "signature": image.signature,
        "users": image.users,
        "imports": [_imported(each) for each in image.imports],
        "name": image.name,
    }


def _imported(text: str) -> dict[str, str]:
    name, _, version = text.partition(" ")
    return {"name": name, "version": version}


def _row(image: dict[str, Any]) -> tuple[object, ...]:
    imports = [f"{word(each['name'])}={word(each['version'])}" for each in image["imports"]]
    return (
        image["id"],
        word(image["kind"]),
        image["size"],
        word(image["digest"]),
        word(image["signature"]),
        ",".join(map(word, image["instances"])) or None,
        ",".join(map(word, image["running"])) or None,
        ",".join(imports) or None,
        line(image["name"]),
    )
