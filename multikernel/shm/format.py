"""What a ring carries: records of bytes, or elements of one numpy dtype and shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MOST_DIMENSIONS = 8
"""Of an element that the extension's calls take."""


@dataclass(frozen=True)
class Format:
    """The elements of a ring. size: of one, bytes; 0 for records, which have no dtype. name: for people."""

    dtype: Any = None
    shape: tuple[int, ...] = ()
    size: int = 0
    name: str = "records"

    @classmethod
    def of(cls, dtype: Any, shape: int | tuple[int, ...]) -> Format:
        """From what `Ring` was given; ValueError for an object dtype, or a shape without a dtype."""
        if dtype is None:
            if shape not in ((), None):
                raise ValueError(f"shape={shape!r} without a dtype: records are bytes and have no shape")
            return cls()
        import numpy as np  # only rings with a dtype need it

        full = np.dtype((np.dtype(dtype), shape))
        if full.hasobject:
            raise ValueError(f"dtype {full}: objects cannot lie in shared memory; pickle them into records")
        if not full.itemsize:
            raise ValueError(f"dtype {full} has no size")
        shape = tuple(full.shape)
        # The name is made now: at the end of the interpreter numpy can no longer say it.
        return cls(full.base, shape, full.itemsize, f"{full.base}{list(shape) if shape else ''}")

    def for_calls(self) -> tuple[Any, ...] | None:
        """What the extension's calls are told of elements, nothing for records; None: these are left to Python."""
        if not self.size:
            return ()
        if len(self.shape) > MOST_DIMENSIONS:
            return None
        import numpy as np

        return np.ndarray, self.dtype, np.empty, self.shape, self.size

    def array(self, n: int) -> Any:
        """A new array for `n` elements."""
        import numpy as np

        return np.empty((n, *self.shape), self.dtype)

    def check(self, elements: Any, *, many: bool) -> Any:
        """`elements` as the array that they are; nothing is converted, so nothing is copied.

        Raises:
            TypeError: no array, or of another dtype.
            ValueError: of another shape, or not contiguous.
        """
        import numpy as np

        if not isinstance(elements, (np.ndarray, np.generic)):
            raise TypeError(f"this ring carries {self}: send a numpy array of them, not {type(elements).__name__}")
        if elements.dtype != self.dtype:
            raise TypeError(f"this ring carries {self.dtype}, the array has {elements.dtype}: convert it with .astype")
        inner = elements.shape[1:] if many else elements.shape
        if inner != self.shape or (many and not elements.ndim):
            wanted = f"(n, {', '.join(map(str, self.shape))})" if many else str(self.shape)
            raise ValueError(f"this ring carries shape {wanted}, the array has {elements.shape}")
        if not elements.flags.c_contiguous:
            raise ValueError("the array must be contiguous: send numpy.ascontiguousarray of it")
        return elements

    def room(self, elements: Any) -> memoryview:
        """The bytes of an array that elements are to be written into.

        Raises:
            TypeError, ValueError: as `check`; it is read-only, or has no place for one.
        """
        array = self.check(elements, many=True)
        if not array.flags.writeable:
            raise ValueError("the array is read-only")
        if not len(array):
            raise ValueError("the array has no place for an element")
        return memoryview(as_bytes(array))

    def capacity(self, least: int) -> int:
        """The bytes for a ring of at least `least`: a power of two, room for one element."""
        return 1 << (max(least, self.size, 1) - 1).bit_length()

    def __str__(self) -> str:
        return self.name


def as_bytes(array: Any) -> Any:
    """The bytes of a contiguous array, as an array of its own over the same memory: every dtype has them."""
    return array.reshape(-1).view("u1")
