"""Messages: what they carry, and the type numbers of the multikernel tree (include/linux/multikernel.h)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .link import Link

IO = 0x1000
RESOURCE = 0x2000
SYSTEM = 0x3000
USER = 0x4000
NETWORK = 0x5000
SHUTDOWN = 0x3002
"""Subtype of SYSTEM: the host asks an instance to finish its work and stop."""

REPLY = 1 << 63
"""Bit of an id: answers the message whose id is the rest."""

REQUEST = 1 << 62
"""Bit of an id: its sender waits for the reply."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a link.

    type, subtype: 16 bits each; USER is for programs, IO, RESOURCE, SYSTEM and NETWORK mean what they do in the tree
    id: a number of the sender's; replies carry the id of what they answer and REPLY
    sender: id of the party at the other end: 0 the host, 1 to 511 an instance, from 512 a client. It is known from
        the lane and cannot be forged.
    redelivered: whether an earlier incarnation had seen it
    payload: bytes, or a read-only memoryview that is valid until the next message is asked for
    link: the link that it came by; None for one made by hand
    """

    type: int
    subtype: int
    id: int
    sender: int
    redelivered: bool
    payload: bytes | memoryview
    link: Link | None = field(default=None, repr=False, compare=False)

    def reply(self, payload: Any, *, type: int = USER, subtype: int = 0, timeout: float | None = None) -> None:  # noqa: A002
        """Answer this message over the link that it came by. What a plain `send` gets as an answer comes out of `recv`.

        Args:
            payload: bytes-like, contiguous.
            type: of the answer, 16 bits.
            subtype: of the answer, 16 bits.
            timeout: seconds to wait for room.

        Raises:
            Closed: the sender is gone, or the link was closed. Not inside an instance: there the answer is dropped.
        """
        if self.link is None:
            raise ValueError("this message did not come from a link: there is nobody to reply to")
        self.link.reply(self, payload, type=type, subtype=subtype, timeout=timeout)


def check_type(type_: int, subtype: int) -> None:
    """ValueError for what does not fit a record's header, or is the host's alone to send."""
    if not (0 <= type_ <= 0xFFFF and 0 <= subtype <= 0xFFFF):
        raise ValueError(f"type {type_:#x}, subtype {subtype:#x}: 16 bits each (0 to 0xffff)")
    if type_ in (SYSTEM, RESOURCE):
        raise ValueError(f"type {type_:#x}: system and resource messages are the host's alone to send; use {USER:#x}")
