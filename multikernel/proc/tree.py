"""`Proc`: the tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from multikernel.errors import NotFound
from multikernel.proc import cpuinfo, interrupts, kimages, meminfo, uptime, version
from multikernel.proc.instance import boot, cmdline, console, cpus, image, links, memory, panic, status
from multikernel.proc.instance import interrupts as own_interrupts
from multikernel.proc.reader import Reader, Seen
from multikernel.proc.watched import no_panic

if TYPE_CHECKING:
    from multikernel.proc.watched import Find, FindPanic, Watching
    from multikernel.shm.pages import MachineView


class _Leaf(NamedTuple):
    text: Callable[[Any], str]
    values: Callable[[Any], Any]


_MACHINE: dict[str, _Leaf] = {
    "version": _Leaf(version.text, version.values),
    "uptime": _Leaf(uptime.text, uptime.values),
    "cpuinfo": _Leaf(cpuinfo.text, cpuinfo.values),
    "meminfo": _Leaf(meminfo.text, meminfo.values),
    "interrupts": _Leaf(interrupts.text, interrupts.values),
    "kimages": _Leaf(kimages.text, kimages.values),
}
_INSTANCE: dict[str, _Leaf] = {
    "status": _Leaf(status.text, status.values),
    "cmdline": _Leaf(cmdline.text, cmdline.values),
    "image": _Leaf(image.text, image.values),
    "cpus": _Leaf(cpus.text, cpus.values),
    "memory": _Leaf(memory.text, memory.values),
    "interrupts": _Leaf(own_interrupts.text, own_interrupts.values),
    "links": _Leaf(links.text, links.values),
    "console": _Leaf(console.text, console.values),
    "panic": _Leaf(panic.text, panic.values),
    "boot": _Leaf(boot.text, boot.values),
}
_INSTANCES = "instances"


class Proc(Mapping[str, str]):
    """A machine's view: a mapping from path ("instances/web/status") to text, made when it is read.

    Nobody is asked: host and instances may be hung, stopped or dead. An instance's figures are those of its newest
    incarnation, running or not; they are of one look at its page each, but not of one instant. Instances come and go:
    a path that was listed may be `NotFound` when it is read, and `snapshot` is the way to have all at once.

    Args:
        view: the machine's page.
        incarnations: what the caller holds of each instance, by id: a dict, or a function. See `watched`.
        panics: gives the panic report of an instance, by its id and the epoch that the host's page says.
    """

    def __init__(self, view: MachineView, incarnations: Watching | Find, panics: FindPanic = no_panic) -> None:
        self._reader = Reader(view, incarnations if callable(incarnations) else incarnations.get, panics)

    def __getitem__(self, path: str) -> str:
        """The text at `path`; NotFound says what there is instead."""
        make, of = self._leaf(path)
        return make.text(of)

    def __iter__(self) -> Iterator[str]:
        yield from _MACHINE
        for record in self._reader.records():
            for leaf in _INSTANCE:
                yield f"{_INSTANCES}/{record.name}/{leaf}"

    def __len__(self) -> int:
        return len(_MACHINE) + len(_INSTANCE) * len(self._reader.records())

    def __contains__(self, path: object) -> bool:
        match _split(path) if isinstance(path, str) else ():
            case (leaf,):
                return leaf in _MACHINE
            case (directory, name, leaf):
                return directory == _INSTANCES and leaf in _INSTANCE and self._has(name)
        return False

    def __repr__(self) -> str:
        return f"<view of machine {self._reader.machine().name!r}>"

    def ls(self, path: str = "") -> list[str]:
        """The names in directory `path`, as `ls -p` has them: those of directories end in "/".

        Raises:
            NotFound: there is no such directory; a leaf is none.
        """
        names = self._names(_split(path))
        if names is None:
            raise NotFound(f"{path!r} is no directory: read it.", path=path) if path in self else self._missing(path)
        return names

    def snapshot(self, path: str = "") -> Any:
        """What is at `path`, as plain data for a JSON document: of a leaf its values, of a directory a dict by name.

        The whole tree is a dict: that of an instance is under "instances", by its name, and holds its leaves. Each
        instance's page is read once.

        Raises:
            NotFound: nothing is there.
        """
        match _split(path):
            case ():
                whole = {name: leaf.values(self._reader) for name, leaf in _MACHINE.items()}
                return whole | {_INSTANCES: self.snapshot(_INSTANCES)}
            case (directory,) if directory == _INSTANCES:
                return {seen.record.name: _all_of(seen) for seen in self._reader.all()}
            case (directory, name) if directory == _INSTANCES and (seen := self._reader.find(name)):
                return _all_of(seen)
        make, of = self._leaf(path)
        return make.values(of)

    def _leaf(self, path: str) -> tuple[_Leaf, Reader | Seen]:
        match _split(path):
            case (leaf,) if leaf in _MACHINE:
                return _MACHINE[leaf], self._reader
            case (directory, name, leaf) if directory == _INSTANCES and leaf in _INSTANCE:
                if seen := self._reader.find(name):
                    return _INSTANCE[leaf], seen
        raise self._missing(path)

    def _has(self, name: str) -> bool:
        return any(record.name == name for record in self._reader.records())

    def _names(self, parts: tuple[str, ...]) -> list[str] | None:
        """What is in a directory; None: it is none."""
        match parts:
            case ():
                return [*_MACHINE, f"{_INSTANCES}/"]
            case (directory,) if directory == _INSTANCES:
                return [f"{record.name}/" for record in self._reader.records()]
            case (directory, name) if directory == _INSTANCES and self._has(name):
                return list(_INSTANCE)
        return None

    def _missing(self, path: str) -> NotFound:
        """The error for a path where no leaf is, with what the last directory on the way there has."""
        parts = _split(path)
        depth = len(parts)
        while (names := self._names(parts[:depth])) is None:
            depth -= 1
        where = "/".join(parts[:depth]) + "/" if depth else "the view"
        what = f"{path!r} is a directory" if depth == len(parts) else f"there is no {path!r}"
        there = f"has {', '.join(names)}" if names else "is empty"
        return NotFound(f"{what}: {where} {there}.", path=path, names=tuple(names))


def _all_of(seen: Seen) -> dict[str, Any]:
    return {name: leaf.values(seen) for name, leaf in _INSTANCE.items()}


def _split(path: str) -> tuple[str, ...]:
    """The parts of a path; slashes in front, at the end and twice mean nothing, as in a file's path."""
    if not isinstance(path, str):
        raise TypeError(f"a path of the view is text, not {type(path).__name__}")
    return tuple(part for part in path.split("/") if part)
