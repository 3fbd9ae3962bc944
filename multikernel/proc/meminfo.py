"""`meminfo`: the pool's memory, and what each instance may take of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multikernel.proc.words import word

if TYPE_CHECKING:
    from multikernel.proc.reader import Reader


def values(reader: Reader) -> dict[str, Any]:
    """Bytes. images: of the images that are loaded; instances: the budget of each, by name."""
    machine = reader.machine()
    return {
        "total": machine.memory,
        "used": machine.memory_used,
        "free": max(0, machine.memory - machine.memory_used),
        "images": sum(image.size for image in reader.images()),
        "instances": {record.name: record.memory for record in reader.records()},
    }


def text(reader: Reader) -> str:
    """Lines as those of /proc/meminfo, in its unit."""
    its = values(reader)
    rows = [
        ("PoolTotal", its["total"]),
        ("PoolUsed", its["used"]),
        ("PoolFree", its["free"]),
        ("Images", its["images"]),
        *((f"Instance({word(name)})", memory) for name, memory in its["instances"].items()),
    ]
    width = max(len(name) for name, _ in rows) + 1
    return "".join(f"{name + ':':<{width}} {size // 1024:>11} kB\n" for name, size in rows)
