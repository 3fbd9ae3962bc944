"""Sizes, lists of cpus, and times to wait, as people write them.

Sizes are powers of 1024 whatever their letters: "64K", "64KB" and "64KiB" are all 65536 bytes. Lists of cpus are
written as the kernel writes them in sysfs: "0-3,5".
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from fractions import Fraction
from numbers import Real

MAX_SIZE = 2**63 - 1
"""Largest size in bytes: what a file offset can say."""

MAX_CPU = 8191
"""Largest cpu number: Linux on x86-64 and arm64 is built for 8192 cpus at most."""

MAX_SECONDS = 10.0**9
"""Longest time to wait; what is longer, or without end, is this: some thirty years."""

_UNITS = "KMGTPE"
_SIZE = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*(?:([KMGTPE])(?:I?B)?|B)?", re.IGNORECASE | re.ASCII)
_CPUS = re.compile(r"([0-9]{1,9})(?:\s*-\s*([0-9]{1,9}))?")


def parse_size(size: int | str) -> int:
    """Bytes in `size`: an int, or text such as "4096", "64K", "64KB", "1.5G". Fractions of a byte are cut off.

    Raises:
        ValueError: it is not a size, is negative, or is over `MAX_SIZE`.
        TypeError: neither an int nor text.
    """
    if isinstance(size, str):
        match = _SIZE.fullmatch(size.strip())
        if match is None:
            raise ValueError(
                f'{_shown(size)} is not a size: write bytes (4096) or K, M, G, T with them ("64K", "1.5GB")'
            )
        number, unit = match.groups()
        count = int(Fraction(number) * 1024 ** (_UNITS.index(unit.upper()) + 1 if unit else 0))
    else:
        count = _integer(size, 'a size is an int or text such as "64K"')
        if count < 0:
            raise ValueError(f"a size cannot be negative: {count}")
    if count > MAX_SIZE:
        raise ValueError(f"a size is at most {MAX_SIZE} bytes (8E less one), not {_shown(size)}")
    return count


def format_size(size: int) -> str:
    """`size` bytes for people: "512B", "64K", "1.5G". At most one decimal, so it may be rounded."""
    for power in range(len(_UNITS), 0, -1):
        unit = 1024**power
        if size >= unit - unit // 1024 // 20:  # what would round to 1024 of the next smaller unit is one of this
            whole, tenth = divmod((size * 20 + unit) // (unit * 2), 10)
            return f"{whole}.{tenth}{_UNITS[power - 1]}" if tenth else f"{whole}{_UNITS[power - 1]}"
    return f"{size}B"


def parse_cpus(cpus: int | str | Iterable[int]) -> tuple[int, ...]:
    """The cpus meant, ascending, each once: from an int, a list or set of them, or text such as "0-3,5" or "none".

    Whether they exist is not looked at.

    Raises:
        ValueError: the text is no list of cpus, or a number is negative or over `MAX_CPU`.
        TypeError: something else than ints in the list.
    """
    if isinstance(cpus, str):
        found = _cpus_of_text(cpus)
    elif isinstance(cpus, Iterable):
        found = {_integer(cpu, "a cpu is an int") for cpu in cpus}
    else:
        found = {_integer(cpus, 'cpus are an int, a list of ints or text such as "0-3,5"')}
    for cpu in found:
        _check_cpu(cpu)
    return tuple(sorted(found))


def format_cpus(cpus: Iterable[int]) -> str:
    """`cpus` as `parse_cpus` reads them: "0-3,5"; "none" if there are none."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(f"{first}-{last}" if first < last else f"{first}" for first, last in ranges) or "none"


def parse_seconds(seconds: float) -> float:
    """A time that somebody is ready to wait: a number from 0 up; more than `MAX_SECONDS` is that.

    Raises:
        ValueError: it is negative, or no number.
        TypeError: neither an int nor a float.
    """
    given: object = seconds  # whatever its annotation says
    if isinstance(given, bool) or not isinstance(given, Real):
        raise TypeError(f"a time is a number of seconds, not {type(seconds).__name__}")
    if not seconds >= 0:
        raise ValueError(f"a time to wait is a number of seconds from 0 up, not {_shown(seconds)}")
    return float(min(seconds, MAX_SECONDS))


def _cpus_of_text(text: str) -> set[int]:
    if text.strip() == "none":
        return set()
    found: set[int] = set()
    for part in text.split(","):
        match = _CPUS.fullmatch(part.strip())
        if match is None:
            raise ValueError(f'{_shown(text)} is not a list of cpus: write numbers and ranges, as in "0-3,5"')
        first = int(match[1])
        last = _check_cpu(int(match[2] or first))  # before a range is made of it
        if last < first:
            raise ValueError(f"{_shown(text)} is not a list of cpus: the range {match[0]} ends before it begins")
        found.update(range(first, last + 1))
    return found


def _check_cpu(cpu: int) -> int:
    if not 0 <= cpu <= MAX_CPU:
        raise ValueError(f"there can be no cpu {cpu}: they are numbered from 0 to {MAX_CPU} at most")
    return cpu


def _integer(value: object, rule: str) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{rule}, not {type(value).__name__}")
    return operator.index(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}..."
