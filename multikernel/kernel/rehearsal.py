"""What a boot does, done once before by a process that is to boot later: with a host, a client and an image of its own.

After a fork parent and child share their memory, until one of them writes to it: each page that a boot touches for the
first time costs a fault, mostly with a copy, and in Python nearly all that is looked at is written to (the count of its
references). Here the same pages are touched by the same code while nobody waits for it. Nothing is left of it: no
descriptor, no mapping, no module, no thread.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from multikernel.image import Image, load
from multikernel.ipi.half import LinkHalf
from multikernel.ipi.hostlane import HostLane, HostLaneReceiver
from multikernel.kernel.manifest import Manifest
from multikernel.kernel.runtime import Kernel
from multikernel.shm.channel import Channel, close_all
from multikernel.shm.pages import CLIENT_ID, Console, StatusPage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_NAME = "multikernel_rehearsal"
_SOURCE = b"""
def main(kernel):
    for message in kernel.messages(timeout=0):
        message.reply(message.payload)
"""
_CAPACITY = 65536  # bytes of the link


def rehearse() -> Generator[None, None, None]:
    """Boot, be linked to, answer one message and end; for a process of one thread.

    It yields between its steps, and may be closed there.

    Raises:
        MultikernelError, OSError: there is no memory, or no descriptor. Descriptors may be left open then.
    """
    try:
        yield from _live()
    finally:
        gc.collect()  # closes what is left now, and not when its descriptor is another's


def _live() -> Generator[None, None, None]:
    with ExitStack() as stack:
        host, ours = (stack.enter_context(end) for end in Channel.pair())
        image = stack.enter_context(_image())
        asked = Manifest(1, _NAME, 1, _NAME, (0,), 1 << 20, "", "/", image.describe())
        host.send({"verb": "spawn", "manifest": asked.to_json()}, [image.fd])
        request, given = ours.receive()
        stack.callback(close_all, given)
        manifest = Manifest.from_json(request["manifest"])
        yield
        lane = HostLane.create(1, 1)
        stack.callback(lane.close)
        status = StatusPage.create(1, 1)
        stack.callback(status.close)
        status.phase("mapped")
        console = Console.create(1, 1)
        stack.callback(console.finish)
        output, printed = os.pipe()
        stack.callback(os.close, printed)
        console.drain(output)
        own = HostLaneReceiver.create(1, 1)
        stack.callback(own.close)
        ours.send({"verb": "hello", "epoch": 1}, [status.fd, console.fd, *own.descriptors()])
        bell, its_bell = _pair(stack)
        own.attach(os.dup(lane.descriptors()[0]), os.dup(its_bell))
        [*pages, consumer] = host.receive()[1]
        close_all(pages)
        lane.attach(consumer, os.dup(bell))
        yield
        kernel = Kernel(manifest, ours, own, status, console, None, None)
        yield
        main = _enter(manifest, image)
        yield
        half = LinkHalf.create(_CAPACITY, CLIENT_ID, 0)
        stack.callback(half.close)
        end, its_end = _pair(stack)
        pidfd = os.pidfd_open(os.getpid())
        stack.callback(os.close, pidfd)
        offer = {"push": "link", "link": 1, "peer": CLIENT_ID, "peer_name": _NAME, "peer_epoch": 0}
        host.send({**offer, "capacity": _CAPACITY}, [*half.descriptors(), its_end, pidfd])
        lane.ring()
        main(kernel)
        for taken in kernel._links:
            stack.callback(taken.close)
        link = half.attach(host.receive()[1], socket_fd=os.dup(end), pidfd=os.dup(pidfd), peer_id=1, peer_name=_NAME)
        stack.callback(link.close)
        link.send(b"are you there?")
        main(kernel)


def _image() -> Image:
    path = [each for each in sys.path if os.path.isabs(each)]
    return Image.make(_SOURCE, kind="script", name=_NAME, entry="main", module=_NAME, origin=f"/{_NAME}.py", path=path)


def _enter(manifest: Manifest, image: Image) -> Callable[[Kernel], None]:
    """Import it, as a boot does, and forget it again."""
    finders, path = list(sys.meta_path), list(sys.path)
    try:
        with Image.from_description(dict(manifest.image), os.dup(image.fd)) as copy:
            return load.enter(copy)
    finally:
        sys.meta_path[:], sys.path[:] = finders, path
        sys.modules.pop(_NAME, None)


def _pair(stack: ExitStack) -> tuple[int, int]:
    one, other = (end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))
    stack.callback(close_all, [one, other])
    return one, other
