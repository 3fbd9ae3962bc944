"""`interrupts`: IPIs that came, a row a vector and a column an instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multikernel.proc.words import word

if TYPE_CHECKING:
    from multikernel.proc.reader import Reader, Seen


def values(reader: Reader) -> dict[str, Any]:
    """IPIs by instance and vector, as `of` has them; the vectors that ever came to any."""
    return merge({seen.record.name: of(seen) for seen in reader.all()})


def text(reader: Reader) -> str:
    """Laid out as /proc/interrupts is."""
    return layout(values(reader))


def of(seen: Seen) -> dict[int, int] | None:
    """How often each vector came, those that did; None: this incarnation's page has not come to the reader."""
    if seen.status is None:
        return {} if not seen.record.epoch else None
    return {vector: count for vector, count in enumerate(seen.status.ipi) if count}


def merge(instances: dict[str, dict[int, int] | None]) -> dict[str, Any]:
    """A table of some instances."""
    vectors = sorted({vector for counts in instances.values() for vector in counts or ()})
    return {"vectors": vectors, "instances": instances}


def layout(table: dict[str, Any]) -> str:
    """The table as text: "-" where a page has not come; the last row is the sum, with what is not known left out."""
    columns = {word(name): counts for name, counts in table["instances"].items()}
    widths = {name: max(10, len(name)) for name in columns}
    rows = ["     " + " ".join(f"{name:>{width}}" for name, width in widths.items())]
    for vector in table["vectors"]:
        cells = {name: "-" if counts is None else str(counts.get(vector, 0)) for name, counts in columns.items()}
        rows.append(f"{vector:>3}: " + " ".join(f"{cells[name]:>{width}}" for name, width in widths.items()))
    totals = {name: "-" if counts is None else str(sum(counts.values())) for name, counts in columns.items()}
    rows.append("TOT: " + " ".join(f"{totals[name]:>{width}}" for name, width in widths.items()))
    return "".join(f"{row.rstrip()}\n" for row in rows)
