"""What `multikernel demo` runs: two instances at work, then plain processes at the same.

```
this program --- START, RESULT, an IPI ten times a second ---> reader
             <-- how far it is, the result ------------------
                                                               reader --- files ---> parser
                                                                      <-- counts ---
```
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import click

from multikernel.errors import Closed, MultikernelError, Timeout
from multikernel.machine import Instance, Machine
from multikernel.resources.topology import allowed
from multikernel.units import parse_cpus

from . import comparison, progress
from .counting import Findings
from .report import Report
from .sources import Source, capacity_for, scan, standard_library
from .words import OFFSET, PARSER, PROGRESS_VECTOR, READER, RESULT, START, Progress

if TYPE_CHECKING:
    from multikernel.ipi.link import Link

ASK_EVERY = 0.1
"""Seconds between two questions how far it is."""

_KNOWN_WITHIN = 10.0  # seconds
_MEMORY = 64 * 1024 * 1024  # bytes of an instance, beside its link
_SHOWN_LINES = 10  # of the console of an instance that failed


def run(given: str | None, cpus: str | None, *, as_json: bool) -> int:
    """See `multikernel.tools.demo.run`."""
    directory = os.path.abspath(given) if given is not None else standard_library()
    both = _choose(cpus)
    sources = scan(directory)
    if both[0] == both[1]:
        click.echo(f"One cpu only ({both[0]}): reader and parser share it, and take turns.", err=True)
    _read_ahead(sources)
    size = sum(source.size for source in sources)
    report = _by_instances(directory, both, sources)
    with progress.bar("multiprocessing.Pool(1)", size) as update:
        report.pool = comparison.run("pool", directory, both, update)
    with progress.bar("one plain process", size) as update:
        report.plain = comparison.run("plain", directory, both, update)
    if as_json:
        click.echo(json.dumps(report.document(), indent=2))
    else:
        report.show()
    if not report.equal:
        click.echo("The totals differ: have files been changed while the demo ran?", err=True)
        return 1
    return 0


def _choose(cpus: str | None) -> tuple[int, int]:
    """The cpus of reader and parser; twice the same if there is one only."""
    usable = allowed()[:2] if cpus is None else parse_cpus(cpus)
    if not 1 <= len(usable) <= 2:
        raise ValueError(f"--cpus {cpus}: the demo has two instances, and takes one or two cpus, not {len(usable)}")
    return usable[0], usable[-1]


def _read_ahead(sources: list[Source]) -> None:
    """Bring the files into the page cache, so that whoever comes first does not pay for the disk."""
    for source in sources:
        try:
            with open(source.path, "rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass
        except OSError:
            continue  # whoever is to count it says so


def _by_instances(directory: str, cpus: tuple[int, int], sources: list[Source]) -> Report:
    """Let the two instances do it."""
    shared = cpus[0] == cpus[1]
    with Machine(cpus=set(cpus), name=f"demo-{os.getpid()}") as machine:
        memory = _MEMORY + 2 * capacity_for(sources)
        instances = []
        for name, cpu in ((PARSER, cpus[1]), (READER, cpus[0])):
            instance = machine.create(name, cpus=cpu, memory=memory, exclusive=not shared)
            instance.load(f"multikernel.tools.demo.{name}:main")
            instance.boot(until="ready")
            instances.append(instance)
        with machine.connect(READER) as link:
            try:
                result = _supervise(link, instances, directory, sources)
            except Closed:
                with contextlib.suppress(MultikernelError):
                    instances[-1].wait(timeout=_KNOWN_WITHIN)  # a host that is held up says later how it ended
                _check(instances)
                raise
        return Report(
            directory=directory,
            machine=machine.name,
            cpus=cpus,
            result=result,
            findings=Findings.from_json(result),
            instances={name: machine.proc.snapshot(f"instances/{name}/status") for name in (READER, PARSER)},
        )


def _supervise(link: Link, instances: list[Instance], directory: str, sources: list[Source]) -> dict[str, Any]:
    """Ask how far it is until it is done; then get the result."""
    link.send(json.dumps({"directory": directory}).encode(), subtype=START)
    with progress.bar("two instances", sum(source.size for source in sources)) as update:
        finished = False
        while not finished:
            link.ipi(PROGRESS_VECTOR)
            ask_again = time.monotonic() + ASK_EVERY
            while not finished and (left := ask_again - time.monotonic()) > 0:
                try:
                    message = link.recv(timeout=left)
                except Timeout:
                    break
                state = Progress.unpack(message.payload)
                finished = state.finished
                update(state.size)
            if not finished:
                _check(instances)
    content = b""
    while piece := link.request(OFFSET.pack(len(content)), subtype=RESULT).payload:
        content += piece
    document: dict[str, Any] = json.loads(content)
    return document


def _check(instances: list[Instance]) -> None:
    """Raise MultikernelError if one of them has ended."""
    for instance in instances:
        state, end = instance.state, instance.last_end
        if state == "active" or end is None:
            continue
        how = f"signal {end.signal}, {_signal_name(end.signal)}" if end.signal else f"{end.reason}, status {end.code}"
        said = "".join(f"\n  {line}" for line in end.traceback.rstrip().splitlines()[-_SHOWN_LINES:])
        raise MultikernelError(
            f"{instance.name} ended in the middle of the work ({how}); its state is {state}. The demo is over, and "
            f"nothing is left of it.{said}",
            name=instance.name,
            state=state,
            reason=end.reason,
            signal=end.signal,
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time one
        return "a real-time signal"
