"""Images: what an instance boots, read once and sealed, so that editing the file afterwards changes nothing.

A client reads (`read`, without importing anything of the image), the host checks and keeps (`Image.from_description`),
the instance enters (`multikernel.image.load.enter`). A kind of image is a file here: `script`, `module`, `pyz`, and
`folder` for a directory.
"""

from __future__ import annotations

from .cmdline import Params
from .image import MAX_IMAGE, Image
from .initrd import Initrd
from .spec import read

__all__ = ["MAX_IMAGE", "Image", "Initrd", "Params", "read"]
