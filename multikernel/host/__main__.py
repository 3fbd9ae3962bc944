"""Where the processes of a machine begin that have an interpreter of their own; see `multikernel.host.interpreter`.

A host is started by a program, with one socket to it. The first document on that says which machine it is to be, and
brings a pidfd of the program:

    {"verb": "start", "id": n, "protocol": p, "name": name, "cpus": [..], "memory": bytes, "persistent": true | false,
     "trusted": [public key, hex, ..], "preload": [module, ..]}
        + [pidfd, pipe]
    {"verb": "revive", "id": n, "protocol": p, "name": name} + [pidfd, pipe]
        a persistent machine whose host and zygote were killed: its instances go on, and look for a host

It is answered as `join` is (`multikernel.host.verbs`), with the machine object, or with what went wrong. Then the
socket is the program's control connection. The second descriptor is the write end of a pipe: host and zygote hold it
and do nothing with it, so that the program sees, even of a killed host, when all is gone.

An heir is started by the zygote of a persistent machine whose host was killed; a zygote by the host of one whose zygote
was killed. Both get a channel to who has started them, and the lock of the run directory, which says whose it is.
"""

from __future__ import annotations

import os
import resource
import socket
from typing import TYPE_CHECKING, Any

from multikernel.errors import Closed, MultikernelError, to_wire
from multikernel.host import ledger, preload
from multikernel.host.interpreter import FIRST, Role
from multikernel.host.request import Request, check_protocol
from multikernel.host.rundir import RunDir
from multikernel.kernel import process
from multikernel.shm.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_WORD_WITHIN = 30.0  # seconds; who starts one of these has it ready
_KEY_SIZE = 32  # bytes; of an Ed25519 public key


def host() -> int:
    """Be a host; in forked children, its zygote and its instances. Returns the exit status of this process."""
    process.close_all_but([FIRST])
    creator = Channel(socket.socket(fileno=FIRST))
    try:
        received = creator.receive(timeout=_FIRST_WORD_WITHIN)
    except Closed:
        received = None
    if received is None:
        return 1
    request = Request(*received)
    try:
        rundir, machine = _claim(request)
        pidfd, _ = request.take(2)
    except (MultikernelError, OSError) as error:
        creator.send({"answer": request.number, "failed": to_wire(error)})
        return 1
    zygote, ours = Channel.pair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        creator.close()
        os.close(pidfd)
        from multikernel.host import zygote as zygote_

        return zygote_.main(zygote, rundir, persistent=machine["persistent"], preload=machine["preload"])
    zygote.close()
    _become_host()
    # Only now, and only here: asyncio is none of the zygote's, and the two start beside each other.
    from multikernel.host import kernel

    start = kernel.Start.of(machine, takes_over=request.verb == "revive")
    return kernel.serve(start, kernel.Inherited(rundir, ours, pid, creator, pidfd), request.number)


def heir() -> int:
    """Be the next host of a machine whose zygote lives. Returns the exit status of this process."""
    channel, rundir = _inherited()
    _become_host()
    from multikernel.host import kernel

    start = kernel.Start.of(ledger.read_machine(rundir), takes_over=True)
    # Who made the channel has started us; a parent that has ended by now would be another.
    return kernel.serve(start, kernel.Inherited(rundir, channel, channel.peer()[0]), None)


def zygote() -> int:
    """Be the next zygote of a persistent machine; in forked children, its instances. Returns the exit status."""
    channel, rundir = _inherited()
    from multikernel.host import zygote as zygote_

    return zygote_.main(channel, rundir, persistent=True, preload=ledger.read_machine(rundir)["preload"])


def instance() -> int:
    """Be an instance that is booted cold. Returns the exit status of this process."""
    from multikernel.host import cold

    return cold.be()


ROLES: dict[Role, Callable[[], int]] = {"host": host, "heir": heir, "zygote": zygote, "instance": instance}


def _claim(request: Request) -> tuple[RunDir, dict[str, Any]]:
    """Make the machine's name ours: its run directory, held, and what the machine is."""
    check_protocol(request)
    rundir = RunDir(request.text("name"))
    if request.verb == "revive":
        rundir.take_over()
        return rundir, ledger.read_machine(rundir)
    machine = {
        "name": rundir.name,
        "cpus": list(request.integers_or_none("cpus") or ()),
        "memory": request.integer("memory"),
        "persistent": request.flag("persistent"),
        "trusted": _keys(request.texts("trusted")),
        "preload": _modules(request.texts("preload")),
    }
    rundir.claim()
    return rundir, machine


def _inherited() -> tuple[Channel, RunDir]:
    """What a process gets that another one of its machine has started: a channel to that, and the machine's lock."""
    channel, lock = FIRST, FIRST + 1
    process.close_all_but([channel, lock])
    os.set_inheritable(lock, False)
    name = os.path.basename(os.readlink(f"/proc/self/fd/{lock}"))
    return Channel(socket.socket(fileno=channel)), RunDir.inherit(name, lock)


def _become_host() -> None:
    process.set_name("mk-host")
    process.close_up()
    process.adopt_orphans()
    process.register_for_barriers()
    _allow_descriptors()


def _keys(texts: list[str]) -> list[str]:
    """Public keys in hex, as they came. Refuses what is none."""
    try:
        sizes = {len(bytes.fromhex(text)) for text in texts}
    except ValueError:
        sizes = {0}
    if not sizes <= {_KEY_SIZE}:
        raise MultikernelError(f"start: 'trusted' must be public keys of {_KEY_SIZE} bytes, in hex")
    return texts


def _modules(texts: list[str]) -> list[str]:
    try:
        return preload.names(texts)
    except ValueError as error:
        raise MultikernelError(f"start: {error}") from None


def _allow_descriptors() -> None:
    """511 instances have eight descriptors here each, more than is usual for a process. The instances keep theirs."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
