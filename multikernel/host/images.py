"""The images that a host keeps: each once, however many instances use it, and a row each on the machine page."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from multikernel.errors import ResourceError
from multikernel.shm.pages import ImageRecord, MachinePage

if TYPE_CHECKING:
    from multikernel.image.image import Image

MOST_IMAGES = 128
"""Rows of the machine page."""


@dataclass(slots=True)
class _Row:
    """An image that is in use, and what is said of it."""

    image: Image
    record: ImageRecord


class ImageTable:
    """Which images are in use, and by how many instances.

    What is the same in all that it is, its import path among it, is one image. What has the same content, and is called
    or entered in another way, is another one, which shares the content's memory.
    """

    def __init__(self, page: MachinePage) -> None:
        self._page = page
        self._rows: dict[int, _Row] = {}  # by slot; an image's id is its slot + 1, since 0 means none

    def take(self, image: Image, signature: str) -> tuple[int, Image]:
        """Count one more user of `image`, owned from here on.

        Returns:
            Its id, from 1 up; and the image to use, which is another object if it was there already.

        Raises:
            ResourceError: there are as many images as there can be. `image` is still the caller's.
            OSError: no descriptor is left; likewise.
        """
        description = image.describe()
        for slot, row in self._rows.items():
            if row.image.describe() == description and row.record.signature == signature:
                if row.image.fd < 0:  # another host's, which had lost it
                    row.image.fd, image.fd = image.fd, -1
                image.close()
                self._write(slot, row.image, replace(row.record, users=row.record.users + 1))
                return slot + 1, row.image
        free = next((slot for slot in range(MOST_IMAGES) if slot not in self._rows), None)
        if free is None:
            raise ResourceError(
                f"{MOST_IMAGES} different images are loaded, and there cannot be more. Unload one.", limit=MOST_IMAGES
            )
        same = (row.image for row in self._rows.values() if row.image.digest == image.digest)
        twin = next((each for each in same if each.fd >= 0), None)
        if twin is not None:
            fd = os.dup(twin.fd)
            image.close()
            image.fd = fd
        record = ImageRecord(
            id=free + 1,
            kind=image.kind,
            name=image.name,
            size=image.size,
            digest=image.digest,
            users=1,
            signature=signature,
            imports=tuple(image.imports),
        )
        self._write(free, image, record)
        return free + 1, image

    def release(self, image_id: int) -> None:
        """Count one user less; with the last goes the image."""
        slot = image_id - 1
        row = self._rows[slot]
        if row.record.users > 1:
            self._write(slot, row.image, replace(row.record, users=row.record.users - 1))
        else:
            del self._rows[slot]
            self._page.clear_image(slot)
            row.image.close()

    def close(self) -> None:
        """Close all images. The rows stay as they are."""
        for row in self._rows.values():
            row.image.close()

    def _write(self, slot: int, image: Image, record: ImageRecord) -> None:
        self._rows[slot] = _Row(image, record)
        self._page.write_image(slot, record)
