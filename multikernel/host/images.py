"""The images that are loaded, as the machine page shows them: one row for each, however many instances use it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from multikernel.errors import ResourceError
from multikernel.shm.pages import ImageRecord, MachinePage

if TYPE_CHECKING:
    from multikernel.image.image import Image

MOST_IMAGES = 128
"""Rows of the machine page."""


class ImageTable:
    """Which images are in use, and by how many instances. The same content under the same name is one image."""

    def __init__(self, page: MachinePage) -> None:
        self._page = page
        self._rows: dict[int, ImageRecord] = {}  # by slot; an image's id is its slot + 1, since 0 means none

    def take(self, image: Image) -> int:
        """Count one more user of `image`. Returns its id, from 1 up.

        Raises:
            ResourceError: there are as many images as there can be.
        """
        for slot, row in self._rows.items():
            if (row.digest, row.kind, row.name) == (image.digest, image.kind, image.name):
                return self._write(slot, replace(row, users=row.users + 1))
        free = next((slot for slot in range(MOST_IMAGES) if slot not in self._rows), None)
        if free is None:
            raise ResourceError(
                f"{MOST_IMAGES} different images are loaded, and there cannot be more. Unload one.", limit=MOST_IMAGES
            )
        return self._write(free, ImageRecord(free + 1, image.kind, image.name, image.size, image.digest, users=1))

    def release(self, image_id: int) -> None:
        """Count one user less; the last takes the row with it."""
        slot = image_id - 1
        row = self._rows[slot]
        if row.users > 1:
            self._write(slot, replace(row, users=row.users - 1))
        else:
            del self._rows[slot]
            self._page.clear_image(slot)

    def _write(self, slot: int, row: ImageRecord) -> int:
        self._rows[slot] = row
        self._page.write_image(slot, row)
        return row.id
