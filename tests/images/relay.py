"""One link of a chain. It answers who has none after it, and passes on what comes between the others.

cmdline: the name of the next instance, or nothing. A message is a number and how many on its way have had it again; a
request is answered with this instance's epoch. b"drop" ends this incarnation in the middle of dealing with it.
"""

from __future__ import annotations

import os
import signal
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import multikernel as mk

FORMAT = struct.Struct("=QI")
CLIENTS = 512


def main(kernel: mk.Kernel) -> None:
    """Relay."""
    onward = kernel.connect(kernel.cmdline, capacity="64K") if kernel.cmdline else None
    for message in kernel.messages():
        if message.payload == b"epoch":
            message.reply(b"%d" % kernel.epoch)
        elif message.payload == b"drop":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            number, again = FORMAT.unpack(message.payload)
            passed = FORMAT.pack(number, again + message.redelivered)
            if message.link is onward:
                back = [link for link in kernel.links if link.peer_id >= CLIENTS]
                back[0].send(passed)
            elif onward is not None:
                onward.send(passed)
            else:
                assert message.link is not None
                message.link.send(passed)
