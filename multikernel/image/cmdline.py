"""`Params`: an instance's command line, read as Linux reads its own (kernel/params.c, `next_arg` and `parse_args`).

    port=8080 quiet name="two words" "path=/a b" -- what follows is nobody's parameter

Parameters stand between blanks. One with "=" has a value, which begins after the first of them; one without is a flag.
Inside of double quotes a blank is like any other character. Quotes around a value, or around a whole parameter, are
taken off; elsewhere they stay. There is no escape: nothing has a quote and a blank in it but by quotes. "-" and "_" in
a name are the same, and read as "_". What follows a lone "--" is no parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_BLANKS = " \t\n\v\f\r"  # isspace() of ASCII
_SHOWN = 40  # characters of the line that an error shows


class Params(Mapping[str, "str | bool"]):
    """Parameters by name: the value as text, or True for a flag. The last of several with one name counts.

    `params["log-level"]` and `params["log_level"]` are the same; iteration gives names with "_".

    Args:
        text: the command line.

    Raises:
        ValueError: a quote is open at the end; the message says where it begins.
        TypeError: it is no text.
    """

    def __init__(self, text: str = "") -> None:
        self._values: dict[str, list[str | bool]] = {}
        if not isinstance(text, str):
            raise TypeError(f"a command line is text, not {type(text).__name__}")
        rest = iter(_split(text))
        for word in rest:
            name, value = _parameter(word)
            if (name, value) == ("--", True):
                break
            self._values.setdefault(_same(name), []).append(value)
        self.rest: tuple[str, ...] = tuple(
            name if value is True else f"{name}={value}" for name, value in map(_parameter, rest)
        )
        """What follows a lone "--", word by word."""

    def all(self, name: str) -> list[str | bool]:
        """All values that `name` was given, in order: Linux lets some parameters add up. None given: an empty list."""
        return list(self._values.get(_same(name), ()))

    def __getitem__(self, name: str) -> str | bool:
        return self._values[_same(name)][-1]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _same(name) in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Params({dict(self)})"


def _split(text: str) -> list[str]:
    """The words of the line, quotes and all."""
    words, begin, quote = [], None, None
    for position, char in enumerate(text):
        if char in _BLANKS and quote is None:
            if begin is not None:
                words.append(text[begin:position])
                begin = None
            continue
        if begin is None:
            begin = position
        if char == '"':
            quote = position if quote is None else None
    if quote is not None:
        shown = text[quote : quote + _SHOWN] + ("..." if len(text) > quote + _SHOWN else "")
        raise ValueError(
            f"the command line has a quote that is never closed, at character {quote + 1}: {shown} "
            "(close it, or leave it out)"
        )
    if begin is not None:
        words.append(text[begin:])
    return words


def _parameter(word: str) -> tuple[str, str | bool]:
    """Name and value. As in Linux, a word that begins with "=" has none before the next one."""
    quoted = word.startswith('"')
    begin = 1 if quoted else 0
    equals = word.find("=", begin + 1)
    if equals > 0 and word[equals + 1 : equals + 2] == '"':
        return word[begin:equals], word[equals + 2 :].removesuffix('"')
    end = len(word) - 1 if quoted and len(word) > 1 and word.endswith('"') else len(word)
    if equals < 0:
        return word[begin:end], True
    return word[begin:equals], word[equals + 1 : end]


def _same(name: str) -> str:
    return name.replace("-", "_")
