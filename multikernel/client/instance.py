"""An instance as a program holds it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Literal

from multikernel.client.input import Input
from multikernel.client.offer import offered
from multikernel.errors import Closed, MultikernelError, NotFound
from multikernel.shm.pages import End
from multikernel.units import parse_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from multikernel.client.membership import Membership
    from multikernel.kernel.panic import Panic
    from multikernel.machine import Machine
    from multikernel.shm.pages import InstanceRecord


class Instance:
    """An instance of a machine: a handle, by name and id. Get one from `Machine.create` or `machine[name]`.

    Properties are read from the host's page, and raise NotFound once it is deleted. Steps raise StateError where the
    state does not allow them: the message says which ones it does.
    """

    def __init__(self, machine: Machine, membership: Membership, name: str, instance_id: int) -> None:
        self.machine = machine
        self._membership = membership
        self.name = name
        self.id = instance_id

    @property
    def state(self) -> str:
        """What it is: "ready", "loaded", "active", "failed" or "standby"."""
        return self._record().state

    @property
    def pid(self) -> int:
        """Of its process; 0 when none runs."""
        return self._record().pid

    @property
    def epoch(self) -> int:
        """The number of its newest incarnation; 0 before the first boot."""
        return self._record().epoch

    @property
    def cpus(self) -> tuple[int, ...]:
        """Its cpus."""
        return self._record().cpus

    @property
    def memory(self) -> int:
        """Its budget, bytes."""
        return self._record().memory

    @property
    def last_end(self) -> End | None:
        """How its last incarnation ended; None while there was none. A long traceback is its last part."""
        return self._record().end

    @property
    def panic(self) -> Panic | None:
        """What is known of the last incarnation that died by itself; None: none has.

        It is kept until the next one that does, or until the instance is deleted.
        """
        epoch = self._record().supervised.panic
        return self._membership.panic(self.id, epoch) if epoch else None

    def load(
        self,
        spec: str | Callable[..., Any],
        cmdline: str = "",
        *,
        initrd: str | os.PathLike[str] | None = None,
        panic: bool = False,
        dry_run: bool = False,
    ) -> None:
        """Read an image once, seal it, and give it to the instance; editing the file afterwards changes nothing.

        Args:
            spec: "server.py:main", "package.module:main", "app.pyz:main" or "./app:main" (a directory), of which the
                last two have the function in `__main__.py`; `main` may be left out. Or a function that can be imported.
            cmdline: what the image finds as `kernel.cmdline`, and in parts as `kernel.params`.
            initrd: a file, or a directory, whose data the image finds as `kernel.initrd`; read and sealed as it is.
            panic: it is the crash image: it boots when the instance dies by itself, on the same cpus and before any
                restart, and finds the report of that as `kernel.panic`. May be loaded at any time; the state stays.
            dry_run: only see whether it would be refused; nothing is loaded.

        Raises:
            ImageError: it cannot be read, or is larger than the instance's memory allows; or it is not signed as the
                machine wants it (`Machine`, verify).
            ValueError: the command line has a quote that is never closed.
            StateError: illegal now. What was loaded stays, as after any error.
        """
        with offered(spec, cmdline, initrd, self.memory) as (fields, fds):
            more = {"directory": os.getcwd(), "panic": panic, "dry_run": dry_run}
            self._request("load", fields | more, fds=fds)

    def boot(self, until: Literal["active", "ready"] = "active", timeout: float = 30.0, *, cold: bool = False) -> None:
        """Boot the image: a new process, pinned to the instance's cpus.

        Args:
            until: return when `main` is entered ("active"), or when it waits for messages for the first time or has
                called `kernel.ready()` ("ready").
            timeout: seconds that this may take.
            cold: in an interpreter of its own, and not in a fork of one that has everything imported: slower, and with
                nothing of what was preloaded. A native image has no interpreter, and boots the same.

        Raises:
            BootError: it ended before, or took too long and was killed. The state is `failed`; fields `console` and
                `traceback` say why, `reason`, `code` and `signal` how.
            StateError: illegal now.
        """
        within = parse_seconds(timeout)
        self._request("boot", {"until": until, "timeout": within, "cold": cold}, timeout=within)

    def reboot(self, until: Literal["active", "ready"] = "active", timeout: float = 30.0) -> None:
        """Boot the image anew, in place of the incarnation that runs, or of the one that failed.

        The new incarnation takes over the id, links, named memory, and messages that were not dealt with: those that
        the old one had seen come again, marked `redelivered`. Links go on at both ends, and nobody connects again.

        Args:
            until: as for `boot`.
            timeout: seconds that this may take. The old incarnation has half of it to halt, and is killed then.

        Raises:
            BootError: as `boot`; links are closed then.
            StateError: illegal now, or it was killed meanwhile.
        """
        within = parse_seconds(timeout)
        self._request("reboot", {"until": until, "timeout": within}, timeout=within)

    def halt(self, timeout: float = 30.0, *, force: bool = True) -> End:
        """Ask it to finish its work and stop, and wait for that.

        Args:
            timeout: seconds it may take.
            force: kill it then. False: `Timeout`, and it stays active.

        Returns:
            How it ended; `forced` says whether it had to be killed.
        """
        within = parse_seconds(timeout)
        return _end(self._request("halt", {"timeout": within, "force": force}, timeout=within))

    def kill(self) -> End:
        """End it at once, also in the middle of a boot or a halt."""
        return _end(self._request("kill", {}))

    def wait(self, timeout: float | None = None) -> End:
        """Wait until it has ended; if nothing of it runs, return at once how the last incarnation ended.

        Raises:
            Timeout: it goes on after `timeout` seconds.
            StateError: it has never been booted.
        """
        within = None if timeout is None else parse_seconds(timeout)
        return _end(self._request("wait", {"timeout": within}, timeout=within))

    def attach(self) -> Input:
        """Type to it: what is written there, the running incarnation reads as its standard input.

        One at a time can; who reads nothing is not disturbed. Without anybody attached a read waits.

        Raises:
            StateError: nothing of it runs.
            ResourceError: another has attached; the message says which process.
        """
        which = {"name": self.name, "instance": self.id}
        fd = self._membership.request_descriptor("attach", which)
        return Input(fd, self.name, self._detach)

    def _detach(self) -> None:
        with contextlib.suppress(MultikernelError):  # it is gone, or its machine: then nobody is attached
            self._request("detach", {})

    def unload(self) -> None:
        """Take the image away; the state is `ready` then."""
        self._request("unload", {})

    def delete(self) -> None:
        """Give back cpus, memory, id and name."""
        self._request("delete", {})
        self._membership.forget(self.id)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Instance):
            return NotImplemented
        return (self.machine, self.name, self.id) == (other.machine, other.name, other.id)

    def __hash__(self) -> int:
        return hash((self.name, self.id))

    def __repr__(self) -> str:
        try:
            record = self._record()
        except (NotFound, Closed, RuntimeError):
            return f"<Instance {self.name!r}, id {self.id}, gone>"
        running = f", pid {record.pid}" if record.pid else ""
        return f"<Instance {self.name!r}, id {self.id}, {record.state}{running}>"

    def _record(self) -> InstanceRecord:
        record = self.machine.view.instance(self.id)
        if record is None or record.name != self.name:
            raise NotFound(f"instance {self.name!r} of machine {self.machine.name!r} was deleted", name=self.name)
        return record

    def _request(
        self, verb: str, fields: dict[str, Any], *, fds: Sequence[int] = (), timeout: float | None = 30.0
    ) -> dict[str, Any]:
        which = {"name": self.name, "instance": self.id}
        return self._membership.request(verb, which | fields, fds=fds, timeout=timeout)


def _end(answer: dict[str, Any]) -> End:
    return End(**answer["end"])
