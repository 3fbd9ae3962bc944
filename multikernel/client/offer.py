"""What a client sends of an image to a host, which checks it: see `multikernel.host.loading`."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def offered(
    spec: str | Callable[..., Any], cmdline: str, initrd: str | os.PathLike[str] | None, memory: int
) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Read and seal an image, and its initrd for an instance with `memory` bytes.

    Returns:
        Fields of a request, and its descriptors, which are closed at the end of the block.

    Raises:
        ImageError: one cannot be read, or is none.
        ValueError: the command line has a quote that is never closed.
    """
    from multikernel import image
    from multikernel.image.signature import beside

    image.Params(cmdline)
    with contextlib.ExitStack() as opened:
        read = opened.enter_context(image.read(spec))
        data = None if initrd is None else opened.enter_context(image.Initrd.read(os.fspath(initrd), memory))
        fields = {
            "image": read.describe(),
            "cmdline": cmdline,
            "initrd": None if data is None else data.kind,
            "signature": beside(read),
        }
        yield fields, [read.fd] if data is None else [read.fd, data.fd]
