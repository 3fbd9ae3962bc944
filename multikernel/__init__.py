"""Kernel instances on cores of their own, talking only by messages and interrupts through shared memory.

    import multikernel as mk

Everything public is here; what a name costs to import is paid when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    BootError,
    Closed,
    CorruptLane,
    HandoverError,
    ImageError,
    MessageTooLarge,
    MultikernelError,
    NotFound,
    NotOwner,
    RemoteError,
    ResourceError,
    StateError,
    Timeout,
    Unsupported,
)

if TYPE_CHECKING:
    from .client.input import Input
    from .concurrent.connection import Pipe
    from .concurrent.executor import CoreExecutor
    from .concurrent.queue import Queue, SimpleQueue
    from .host.policy import Restart
    from .ipi.interface import method
    from .ipi.link import Link
    from .ipi.messages import IO, NETWORK, RESOURCE, SYSTEM, USER, Message
    from .ipi.pending import Pending
    from .ipi.proxy import Call, begin
    from .ipi.service import Service
    from .kernel.event import Event
    from .kernel.panic import Panic
    from .kernel.runtime import Kernel
    from .kernel.timers import Timer
    from .machine import Instance, Machine, machines
    from .shm.broadcast import Broadcast
    from .shm.broadcast_receiver import BroadcastReceiver
    from .shm.broadcast_sender import BroadcastSender
    from .shm.mailbox import Mailbox, MailboxSender
    from .shm.mailbox_receiver import MailboxReceiver
    from .shm.receiver import Receiver
    from .shm.records import Counters, End
    from .shm.ring import Ring
    from .shm.sender import Sender
    from .shm.wait import wait

__version__ = "0.1.0"

_WHERE = {
    "CoreExecutor": "concurrent.executor",
    "Broadcast": "shm.broadcast",
    "BroadcastReceiver": "shm.broadcast_receiver",
    "BroadcastSender": "shm.broadcast_sender",
    "Call": "ipi.proxy",
    "Counters": "shm.records",
    "End": "shm.records",
    "Event": "kernel.event",
    "IO": "ipi.messages",
    "Input": "client.input",
    "Instance": "machine",
    "Kernel": "kernel.runtime",
    "Link": "ipi.link",
    "Machine": "machine",
    "Mailbox": "shm.mailbox",
    "MailboxReceiver": "shm.mailbox_receiver",
    "MailboxSender": "shm.mailbox",
    "Message": "ipi.messages",
    "NETWORK": "ipi.messages",
    "Panic": "kernel.panic",
    "Pending": "ipi.pending",
    "Pipe": "concurrent.connection",
    "Queue": "concurrent.queue",
    "RESOURCE": "ipi.messages",
    "Receiver": "shm.receiver",
    "Restart": "host.policy",
    "Ring": "shm.ring",
    "SYSTEM": "ipi.messages",
    "Sender": "shm.sender",
    "Service": "ipi.service",
    "SimpleQueue": "concurrent.queue",
    "Timer": "kernel.timers",
    "USER": "ipi.messages",
    "begin": "ipi.proxy",
    "machines": "machine",
    "method": "ipi.interface",
    "wait": "shm.wait",
}

__all__ = [
    "IO",
    "NETWORK",
    "RESOURCE",
    "SYSTEM",
    "USER",
    "BootError",
    "Broadcast",
    "BroadcastReceiver",
    "BroadcastSender",
    "Call",
    "Closed",
    "CoreExecutor",
    "CorruptLane",
    "Counters",
    "End",
    "Event",
    "HandoverError",
    "ImageError",
    "Input",
    "Instance",
    "Kernel",
    "Link",
    "Machine",
    "Mailbox",
    "MailboxReceiver",
    "MailboxSender",
    "Message",
    "MessageTooLarge",
    "MultikernelError",
    "NotFound",
    "NotOwner",
    "Panic",
    "Pending",
    "Pipe",
    "Queue",
    "Receiver",
    "RemoteError",
    "ResourceError",
    "Restart",
    "Ring",
    "Sender",
    "Service",
    "SimpleQueue",
    "StateError",
    "Timeout",
    "Timer",
    "Unsupported",
    "__version__",
    "begin",
    "get_include",
    "get_library",
    "machines",
    "method",
    "wait",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    except ImportError as error:
        if error.name != f"{__name__}._core._native":
            raise
        raise Unsupported(
            f"multikernel.{name} needs the C core, which is missing here: it is built for Linux, when the package is "
            f"installed with a C compiler ({error})"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def get_include() -> str:
    """The directory of the C core's headers, for `cc -I`."""
    from pathlib import Path

    return str(Path(__file__).parent / "include")


def get_library() -> str:
    """The C core as a static library, to link native images with: `cc -I... image.c LIBRARY -pthread`.

    Beside it lies pkgconfig/multikernel.pc, which has the same for pkg-config.

    Raises:
        Unsupported: it was not built, since this is not Linux.
    """
    from pathlib import Path

    library = Path(__file__).parent / "lib" / "libmultikernel.a"
    if not library.exists():
        raise Unsupported(f"there is no {library}: the C core is built for Linux, when the package is installed")
    return str(library)
