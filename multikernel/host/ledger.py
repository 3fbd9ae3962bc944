"""What a persistent machine's host writes down, so that the next one knows what it takes over.

    machine           name, pool, when it began, and the first id that no client has had
    instances/ID      an instance: what was reserved for it, its state, what is loaded, what runs, how it last ended

JSON, in the run directory. A file is replaced as a whole (rename), so that a host that is killed in the middle leaves
the one before. Descriptors cannot be written down: those are kept by the zygote (`multikernel.host.deposit`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any

from multikernel.errors import MultikernelError
from multikernel.host.rundir_files import INSTANCES
from multikernel.kernel import process

if TYPE_CHECKING:
    from multikernel.host.instance import Instance, Loaded
    from multikernel.host.rundir import RunDir

_LIVE = ("policy", "loaded", "crash_image", "end", "run", "last", "restart", "panic", "named", "deleted", "_turn")
"""Fields of an instance that are objects of its host's: written in another form, or not at all."""

_MACHINE = "machine"


class Ledger:
    """The files of one machine.

    Args:
        rundir: held by this process.

    Raises:
        OSError: there is no room for them.
    """

    def __init__(self, rundir: RunDir) -> None:
        self._machine = os.dup(rundir.lock)
        self.instances = -1
        """A descriptor of the directory `instances`, which an instance that runs holds a copy of."""
        try:
            self.instances = rundir.hold_for_instances()
        except BaseException:
            self.close()
            raise

    def write_machine(self, document: dict[str, Any]) -> None:
        """Write down what the machine is."""
        _replace(self._machine, _MACHINE, document)

    def write(self, instance: Instance) -> None:
        """Write down all there is to say of an instance."""
        plain = {
            field.name: getattr(instance, field.name)
            for field in dataclasses.fields(instance)
            if field.name not in _LIVE
        }
        end, run = instance.end, instance.run
        _replace(
            self.instances,
            str(instance.id),
            {
                "plain": plain,
                "policy": instance.policy.to_json(),
                "loaded": _loaded(instance.loaded),
                "crash_image": _loaded(instance.crash_image),
                "panic": instance.panic and instance.panic[0],
                "end": end and dataclasses.asdict(end),
                "run": run
                and {
                    "pid": run.pid,
                    "started": process.started(run.pid) if run.pid else 0,
                    "by_policy": run.by_policy,
                    "crashed": run.crashed,
                    "asked": run.asked,
                },
            },
        )

    def erase(self, instance_id: int) -> None:
        """The instance is deleted."""
        with contextlib.suppress(FileNotFoundError):  # there was never room for it
            os.unlink(str(instance_id), dir_fd=self.instances)

    def close(self) -> None:
        """Close the directories. Closing twice is fine."""
        for fd in (self._machine, self.instances):
            if fd >= 0:
                os.close(fd)
        self._machine = self.instances = -1


def _loaded(loaded: Loaded | None) -> dict[str, Any] | None:
    if loaded is None:
        return None
    return {
        "image": loaded.image.describe(),
        "signature": loaded.signature,
        "cmdline": loaded.cmdline,
        "directory": loaded.directory,
    }


def read_machine(rundir: RunDir) -> dict[str, Any]:
    """What `Ledger.write_machine` wrote.

    Raises:
        MultikernelError: it is not there, or not whole.
    """
    return _read(rundir.lock, _MACHINE)


def read_instances(rundir: RunDir) -> list[dict[str, Any]]:
    """What `Ledger.write` wrote of each instance, by id. Raises as `read_machine` does."""
    directory = os.open(INSTANCES, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=rundir.lock)
    try:
        ids = sorted(int(name) for name in os.listdir(directory) if name.isdigit())
        return [_read(directory, str(instance_id)) for instance_id in ids]
    finally:
        os.close(directory)


def _replace(directory: int, name: str, document: dict[str, Any]) -> None:
    new = f"{name}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    with open(fd, "w", encoding="ascii") as file:
        json.dump(document, file)
    os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)


def _read(directory: int, name: str) -> dict[str, Any]:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        with open(fd, encoding="ascii") as file:
            document: dict[str, Any] = json.load(file)
    except (OSError, ValueError) as error:
        raise MultikernelError(
            f"what the last host of this machine wrote down in {name!r} cannot be read: {error}"
        ) from error
    return document
