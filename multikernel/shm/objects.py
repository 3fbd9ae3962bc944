"""Memory objects as descriptors: made, reopened read-only, checked. memory.h says what they are."""

from __future__ import annotations

import errno
from typing import Any, Literal

from multikernel._core import failure, ffi, lib
from multikernel.errors import CorruptLane, MultikernelError

Kind = Literal["producer", "consumer", "status", "console", "machine", "roster"]

_KINDS: dict[str, int] = {
    "producer": lib.MK_KIND_PRODUCER,
    "consumer": lib.MK_KIND_CONSUMER,
    "status": lib.MK_KIND_STATUS,
    "console": lib.MK_KIND_CONSOLE,
    "machine": lib.MK_KIND_MACHINE,
    "roster": lib.MK_KIND_ROSTER,
}
_KIND_NAMES = {number: name for name, number in _KINDS.items()}


def lane_object(kind: Kind, name: str, capacity: int, *, element: int = 0, owner_id: int = 0, epoch: int = 0) -> int:
    """Make the object of one side of a lane; the descriptor is still writable, for the one who will claim it."""
    fd: int = lib.mk_lane_object(_KINDS[kind], f"lane:{name}".encode()[:200], capacity, element, owner_id, epoch)
    if fd == -errno.EINVAL and capacity > lib.MK_CAPACITY_MAX:
        raise ValueError(f"capacity {capacity}: at most {lib.MK_CAPACITY_MAX} bytes")
    if fd == -errno.EINVAL:
        raise ValueError(
            f"capacity {capacity}: must be a power of two, at least {max(lib.MK_CAPACITY_MIN, lib.mk_page_size())} and "
            f"one element ({element})"
        )
    if fd < 0:
        raise failure(fd, f"making a lane of {capacity} bytes")
    return fd


def reopen(fd: int) -> int:
    """A read-only descriptor of the same object."""
    again: int = lib.mk_object_reopen(fd)
    if again < 0:
        raise failure(again, "reopening a memory object read-only")
    return again


def check(fd: int, *, kind: Kind, owner_id: int | None = None, owned: bool = True, element: int | None = None) -> int:
    """Refuse a descriptor that is not the memory object that it should be. Returns the lane's capacity in bytes.

    Args:
        fd: a descriptor that came from elsewhere.
        kind: what it must be.
        owner_id: whose it must be, by its own header; None: not looked at.
        owned: whether its owner must have sealed it against every other writer.
        element: the size of a lane's elements, bytes; 0: records; None: not looked at.

    Raises:
        ValueError: its elements have another size.
        CorruptLane: it is something else, not sealed, not as large as its header says, or of another ABI version.
    """
    header = ffi.new("struct mk_object *")
    why = ffi.new("uint32_t *")
    code = lib.mk_object_check(fd, _KINDS[kind], owned, header, why)
    if code:
        raise refusal(code, why[0], header, kind)
    if owner_id is not None and header.owner_id != owner_id:
        raise CorruptLane(
            f"expected a {kind} object of {owner_id}, got one of {header.owner_id}",
            expected=owner_id,
            found=header.owner_id,
        )
    if element is not None and header.element != element:
        found, wanted = (f"elements of {size} bytes" if size else "records" for size in (header.element, element))
        raise ValueError(f"this ring carries {found}, not {wanted}")
    capacity: int = header.capacity
    return capacity


def refused(code: int, why: int, fd: int, kind: Kind, *, owned: bool = False) -> MultikernelError | OSError:
    """As `refusal`, for a call that did not say what it had found in the header of `fd`."""
    header = ffi.new("struct mk_object *")
    if code == -errno.EPROTO:
        lib.mk_object_check(fd, _KINDS[kind], owned, header, ffi.NULL)
    return refusal(code, why, header, kind)


def refusal(code: int, why: int, header: Any, kind: Kind) -> MultikernelError | OSError:
    """The error for an object that was refused: what was expected and what is there."""
    if code != -errno.EPROTO:
        return failure(code, f"attaching a {kind} object")
    found = {
        lib.MK_REFUSED_KIND_OF_FILE: "the descriptor is no memfd",
        lib.MK_REFUSED_SEALS: "it is not sealed by an owner, so that somebody else could write or shrink it",
        lib.MK_REFUSED_SHORT: "it is smaller than a header",
        lib.MK_REFUSED_MAGIC: "it does not begin as a multikernel object does",
        lib.MK_REFUSED_ABI: f"it has ABI version {header.abi}, this library has {lib.MK_ABI_VERSION}",
        lib.MK_REFUSED_KIND: f"it is a {_KIND_NAMES.get(header.kind, header.kind)} object",
        lib.MK_REFUSED_SIZE: f"its size is not the {header.size} bytes that its header says",
        lib.MK_REFUSED_CAPACITY: f"its capacity ({header.capacity} bytes) is not what it must be",
        lib.MK_REFUSED_ELEMENT: f"its elements ({header.element} bytes) are not what they must be",
        lib.MK_REFUSED_OWNER: f"it is of {header.owner_id}, epoch {header.epoch}, and not of whom it must be",
    }.get(why, f"it was refused ({why})")
    return CorruptLane(f"refused a {kind} object: {found}", kind=kind, reason=int(why))
