"""The source in an image, looked at and never run: whether the function to enter can be there, and what it imports."""

from __future__ import annotations

import ast
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping

from multikernel.errors import ImageError

from .tops import is_the_instances

_quiet = threading.Lock()
"""Warnings are silenced for the process: of two threads at it, the later one would put the silence back."""

MAIN_FILE = "__main__.py"
MAIN_MODULE = "__mk_main__"
"""What `__main__.py` of an archive or a directory is imported as: the instance's own `__main__` is another one."""

_MAKES_NAMES = {"exec", "eval", "globals", "locals", "setattr", "vars", "__getattr__"}


class Source:
    """The modules of one image.

    Args:
        files: source and data by their name in the image.
        name: of the image, for messages.
    """

    def __init__(self, files: Mapping[str, bytes], name: str) -> None:
        self._files = files
        self._name = name

    def check_entry(self, module: str, entry: str) -> None:
        """Refuse an image that certainly cannot enter `entry` of `module`; what only a run can show is left to that.

        Of a `__main__.py` that means: a function of that name. It is often a program's own, which has none.

        Raises:
            ImageError: the module does not parse, and where; or it is a `__main__.py` without the function.
        """
        file = file_of(module, self._files)
        if file is None:
            return
        tree = self._parse(file)
        if file != MAIN_FILE:
            return
        names = _bound(tree)
        wanted = entry.partition(".")[0]
        if names is None or wanted in names:
            return
        there = tuple(sorted(name for name in _callables(tree) if not name.startswith("_")))
        raise ImageError(
            f"no function {entry!r} in {self._name!r}: {file} has {', '.join(there) or 'none'}. "
            f"Write `def {wanted}(kernel)` there, or import it there.",
            entry=entry,
            functions=there,
        )

    def imports(self, module: str) -> set[str]:
        """The top-level modules that importing `module` may need and the image does not have.

        Those of the standard library do not count, nor what the library's own modules import. Imports inside of
        functions do, and what no run ever reaches; imports by a name that is made at run time cannot be seen.
        """
        inside = {name.partition("/")[0].removesuffix(".py") for name in self._files if name.endswith(".py")}
        needed: set[str] = set()
        seen: set[str] = set()
        todo = set(_with_parents(module))
        while todo:
            each = todo.pop()
            seen.add(each)
            top = each.partition(".")[0]
            if top not in inside and top != MAIN_MODULE:
                needed.add(top)
                continue
            file = file_of(each, self._files)
            if file is None or (each != module and is_the_instances(top)):
                continue
            try:
                tree = parse(self._files[file])
            except SyntaxError:  # who imports it will be told
                continue
            package = each if file.endswith("/__init__.py") else each.rpartition(".")[0]
            for name in _imported(tree, package):
                todo.update(set(_with_parents(name)) - seen)
        return needed - sys.stdlib_module_names - {"__main__", ""}

    def _parse(self, file: str) -> ast.Module:
        try:
            return parse(self._files[file])
        except SyntaxError as error:
            where = f", line {error.lineno}" if error.lineno else ""
            text = f": {error.text.strip()}" if error.text and error.text.strip() else ""
            raise ImageError(
                f"cannot load {self._name!r}: {file} is no Python source: {error.msg}{where}{text}",
                file=file,
                line=error.lineno,
            ) from None


def file_of(module: str, files: Mapping[str, bytes]) -> str | None:
    """The file that has the code of `module`; None: it has none."""
    if module == MAIN_MODULE:
        return MAIN_FILE
    base = module.replace(".", "/")
    return next((name for name in (f"{base}/__init__.py", f"{base}.py") if name in files), None)


def parse(source: bytes) -> ast.Module:
    """The syntax tree.

    Raises:
        SyntaxError: there is none; for whatever reason.
    """
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the instance has them, on its console
        try:
            return ast.parse(source)
        except SyntaxError:
            raise
        except (ValueError, RecursionError, MemoryError) as error:  # a NUL; nested too deep
            raise SyntaxError(str(error) or "it is nested too deep") from None


def _bound(tree: ast.Module) -> set[str] | None:
    """Names that the module can have once it is imported; None: only its import can say."""
    names: set[str] = set()
    for node in _of_module(tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            names.add(node.rest)
    if "*" in names or "__getattr__" in names:
        return None
    for each in ast.walk(tree):
        if isinstance(each, ast.Global):
            names.update(each.names)
        elif (isinstance(each, ast.Name) and each.id in _MAKES_NAMES) or (
            isinstance(each, ast.Attribute) and each.attr in ("modules", "__dict__", "__setattr__")
        ):
            return None
    return names


def _of_module(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """All nodes that run in the module's own scope."""
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            todo.extend(ast.iter_child_nodes(node))


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Names of modules, or of what may be one, in import statements anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1] if package else []
                base = ".".join([*parts, *([base] if base else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _with_parents(module: str) -> Iterator[str]:
    """The module, and the packages that it lies in."""
    parts = module.split(".")
    yield from (".".join(parts[: end + 1]) for end in range(len(parts)))


def _callables(tree: ast.Module) -> set[str]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {node.name for node in _of_module(tree.body) if isinstance(node, kinds)}
