"""How often each value was seen: latencies above all, of which the rare long ones matter."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from multikernel._core import ffi, lib

_MOST = 2**64 - 1


class Histogram:
    """Counts of values from 0 to 2**64 - 1, in buckets of fixed size: 34 KiB however many values there are.

    A value is known to within 1/128 of it; those below 256 and the highest of all exactly. From 2**40 up, 18 minutes
    in nanoseconds, all share one bucket. The idea and the division into buckets are HdrHistogram's, by Gil Tene.

    It copies with `copy`, and pickles, so that a child can send what it measured. One thread at a time records.
    """

    __slots__ = ("_counts",)

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._counts = ffi.new("struct mk_histogram *")
        self.record_many(values)

    def record(self, value: int) -> None:
        """Count `value` once. ValueError when it is negative or has more than 64 bits."""
        try:
            lib.mk_histogram_record(self._counts, value)
        except OverflowError:
            raise ValueError(f"a histogram counts values from 0 to {_MOST}, not {value}") from None

    def record_many(self, values: Iterable[int]) -> None:
        """Count each of `values` once, or, if one of them cannot be counted (ValueError, TypeError), none."""
        try:
            words = array("Q", values)
        except OverflowError:
            raise ValueError(f"a histogram counts values from 0 to {_MOST}; one of these lies outside") from None
        lib.mk_py_histogram_record_many(self._counts, ffi.from_buffer("uint64_t[]", words), len(words))

    def merge(self, other: Histogram) -> None:
        """Add all that was recorded in `other`."""
        lib.mk_histogram_merge(self._counts, other._counts)

    @property
    def count(self) -> int:
        """How many values were recorded."""
        count: int = lib.mk_histogram_count(self._counts)
        return count

    @property
    def max(self) -> int:
        """The highest value recorded, exactly; 0 if there is none."""
        highest: int = self._counts.maximum
        return highest

    def percentile(self, percent: float) -> int:
        """The value that `percent` % of the recorded ones do not exceed; 0 if there is none.

        It is the highest value of its bucket, so at most 1/128 too high, and never above `max`. ValueError when
        `percent` is not from 0 to 100.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"a percentile lies between 0 and 100, not at {percent}")
        value: int = lib.mk_histogram_percentile(self._counts, percent)
        return value

    def buckets(self) -> list[tuple[int, int]]:
        """For each bucket that is not empty, from below: the highest value it can hold (at most `max`), its count."""
        counts = ffi.unpack(self._counts.counts, lib.MK_HISTOGRAM_BUCKETS)
        most = self.max
        return [(min(lib.mk_histogram_highest(i), most), n) for i, n in enumerate(counts) if n]

    def __reduce__(self) -> tuple[object, tuple[bytes]]:
        return _restore, (bytes(ffi.buffer(self._counts)),)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return bool(ffi.buffer(self._counts) == ffi.buffer(other._counts))

    __hash__ = None  # type: ignore[assignment] # it changes

    def __repr__(self) -> str:
        if not self.count:
            return "<Histogram: nothing recorded>"
        shown = ", ".join(f"p{p:g}={self.percentile(p)}" for p in (50, 99, 99.99))
        return f"<Histogram of {self.count}: {shown}, max={self.max}>"


def _restore(state: bytes) -> Histogram:
    histogram = Histogram()
    ffi.buffer(histogram._counts)[:] = state
    return histogram
