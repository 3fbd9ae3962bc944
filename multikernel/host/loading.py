"""What a load request brings: received, and checked before the host keeps it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from multikernel.image import Image
from multikernel.image.initrd import Initrd

if TYPE_CHECKING:
    from multikernel.host.request import Request


async def receive(request: Request) -> tuple[Image, Initrd | None]:
    """The image, and the initrd if there is one; both the caller's.

    The image's digest is made anew, of the sealed bytes, by a thread: it may take a while.

    Raises:
        ImageError: one is not what the request says.
        MultikernelError: the request is none.
    """
    description, kind = request.object("image"), request.text_or_none("initrd")
    fds = request.descriptors(1 if kind is None else 2)
    initrd = None if kind is None else Initrd.received(kind, fds[1])
    image = await asyncio.to_thread(Image.from_description, description, fds[0])
    request.take(len(fds))
    return image, initrd
