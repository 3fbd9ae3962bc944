"""What a load request brings: received, and checked before the host keeps it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from multikernel.image import Image
from multikernel.image.initrd import Initrd
from multikernel.image.signature import LONGEST

if TYPE_CHECKING:
    from multikernel.host.request import Request
    from multikernel.image.signature import Trust


class Received(NamedTuple):
    """What was brought; the caller's."""

    image: Image
    signature: str
    """Id of the key that has signed it, or that it is unsigned or unchecked."""
    initrd: Initrd | None

    def close(self) -> None:
        """Close it all: it is not wanted."""
        self.image.close()
        if self.initrd is not None:
            self.initrd.close()


async def receive(request: Request, trust: Trust) -> Received:
    """The image, and the initrd if there is one.

    The image's digest is made anew, of the sealed bytes, and its signature looked at, by a thread: it may take a while.

    Raises:
        ImageError: one is not what the request says, or the image is not signed as it should be.
        MultikernelError: the request is none.
    """
    description, kind = request.object("image"), request.text_or_none("initrd")
    signature = request.text_or_none("signature")
    fds = request.descriptors(1 if kind is None else 2)
    initrd = None if kind is None else Initrd.received(kind, fds[1])
    image, signer = await asyncio.to_thread(_check, description, fds[0], signature, trust)
    request.take(len(fds))
    return Received(image, signer, initrd)


def _check(description: dict[str, Any], fd: int, signature: str | None, trust: Trust) -> tuple[Image, str]:
    """The image, and who has signed it; its descriptor stays the caller's if it is refused."""
    image = Image.from_description(description, fd)
    return image, trust.check(image, None if signature is None else signature[:LONGEST])
