"""What is counted in a file, and how it adds up: the same for the instances and for what they are compared to."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

_NEWLINE = re.compile(rb"\r\n?|\n")
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
_LONGEST_REASON = 200  # characters

SHOWN = 10
"""How many of the largest files are kept."""


class Counts(NamedTuple):
    """What was found in one file. Only what parses has lines, functions, classes and imports."""

    size: int
    """Bytes."""
    lines: int = 0
    functions: int = 0
    """`def` and `async def`, nested ones too."""
    classes: int = 0
    imports: int = 0
    """Import statements, of both forms."""
    reason: str = ""
    """Why it does not parse; "": it does."""


def count(source: Any) -> Counts:
    """Parse a file's content, `bytes` or anything else with a buffer, and count what is in it.

    Nothing here copies the content; CPython's compiler does so itself from what is not `bytes`, since it wants a NUL
    behind it. What cannot be parsed is a result and no error, whatever it is.
    """
    size = len(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the files, which are not ours
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Counts(size, reason=_reason(error))
    lines = len(_NEWLINE.findall(source)) + (size > 0 and source[-1] not in b"\r\n")
    return Counts(size, lines, *_definitions(tree))


def _definitions(tree: ast.Module) -> tuple[int, int, int]:
    """Functions, classes, imports. They are statements: no expression has to be looked into."""
    functions = classes = imports = 0
    blocks: list[list[Any]] = [tree.body]
    while blocks:
        for node in blocks.pop():
            kind = type(node)
            if kind is ast.FunctionDef or kind is ast.AsyncFunctionDef:
                functions += 1
            elif kind is ast.ClassDef:
                classes += 1
            elif kind is ast.Import or kind is ast.ImportFrom:
                imports += 1
                continue
            for name in _BLOCKS:
                block = getattr(node, name, None)
                if type(block) is list:
                    blocks.append(block)
    return functions, classes, imports


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if isinstance(error, SyntaxError):
        where = f"line {error.lineno}: " if error.lineno else ""
        text = f"{where}{error.msg}"
    return text[:_LONGEST_REASON]


@dataclass
class Totals:
    """All files together. What two processes have counted is compared with `==`."""

    files: int = 0
    unparsed: int = 0
    lines: int = 0
    functions: int = 0
    classes: int = 0
    imports: int = 0

    def add(self, counts: Counts) -> None:
        """Add one file."""
        self.files += 1
        self.unparsed += bool(counts.reason)
        self.lines += counts.lines
        self.functions += counts.functions
        self.classes += counts.classes
        self.imports += counts.imports


@dataclass
class Findings:
    """Totals, the largest files, and those that do not parse with the reason."""

    totals: Totals = field(default_factory=Totals)
    size: int = 0
    """Bytes of all files."""
    largest: list[tuple[str, Counts]] = field(default_factory=list)
    unparsed: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, counts: Counts) -> None:
        """Add one file."""
        self.totals.add(counts)
        self.size += counts.size
        if counts.reason:
            self.unparsed.append((name, counts.reason))
        self.largest.append((name, counts))
        if len(self.largest) > 4 * SHOWN:
            self._keep_largest()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        self._keep_largest()
        return {
            "totals": asdict(self.totals),
            "size": self.size,
            "largest": [[name, *counts] for name, counts in self.largest],
            "unparsed": [list(each) for each in self.unparsed],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """What `to_json` made."""
        return cls(
            Totals(**document["totals"]),
            document["size"],
            [(name, Counts(*rest)) for name, *rest in document["largest"]],
            [(name, reason) for name, reason in document["unparsed"]],
        )

    def _keep_largest(self) -> None:
        self.largest.sort(key=lambda each: (-each[1].size, each[0]))
        del self.largest[SHOWN:]
