"""Where a host begins: in an interpreter of its own, with one socket to the program that started it.

The first document on that socket says which machine it is to be, and brings a pidfd of the program:

    {"verb": "start", "id": n, "name": name, "cpus": [..], "memory": bytes, "persistent": true | false,
     "trusted": [public key, hex, ..]}
        + [pidfd, pipe]

It is answered as `join` is (`multikernel.host.verbs`), with the machine object, or with what went wrong. Then the
socket is the program's control connection. The second descriptor is the write end of a pipe: host and zygote hold it
and do nothing with it, so that the program sees, even of a killed host, when all is gone.
"""

from __future__ import annotations

import os
import resource
import socket
import sys

from multikernel.errors import Closed, MultikernelError, to_wire
from multikernel.host.request import Request
from multikernel.host.rundir import RunDir
from multikernel.kernel import process
from multikernel.shm.channel import Channel

_KEY_SIZE = 32  # bytes; of an Ed25519 public key
_FIRST_WORD_WITHIN = 30.0  # seconds; a program that starts a host has its request ready


def main(descriptor: int) -> int:
    """Be a host; in forked children, its zygote and its instances.

    Args:
        descriptor: of the socket to the program that starts it.

    Returns:
        The exit status of this process.
    """
    process.close_all_but([descriptor])
    creator = Channel(socket.socket(fileno=descriptor))
    try:
        received = creator.receive(timeout=_FIRST_WORD_WITHIN)
    except Closed:
        received = None
    if received is None:
        return 1
    request = Request(*received)
    try:
        name, memory, persistent = request.text("name"), request.integer("memory"), request.flag("persistent")
        cpus = request.integers_or_none("cpus") or ()
        trusted = _keys(request.texts("trusted"))
        pidfd, _ = request.take(2)
        rundir = RunDir(name)
        rundir.claim()
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

        return zygote_.main(zygote, rundir)
    zygote.close()
    process.set_name("mk-host")
    process.close_up()
    process.adopt_orphans()
    process.register_for_barriers()
    _allow_descriptors()
    # Only now, and only here: asyncio is none of the zygote's, and the two start beside each other.
    from multikernel.host import kernel

    start = kernel.Start(name, cpus, memory, persistent, trusted)
    return kernel.serve(start, kernel.Inherited(rundir, creator, pidfd, ours, pid), request.number)


def _keys(texts: tuple[str, ...]) -> tuple[bytes, ...]:
    try:
        keys = tuple(bytes.fromhex(text) for text in texts)
    except ValueError:
        keys = (b"",)
    if not all(len(key) == _KEY_SIZE for key in keys):
        raise MultikernelError(f"start: 'trusted' must be public keys of {_KEY_SIZE} bytes, in hex")
    return keys


def _allow_descriptors() -> None:
    """511 instances have eight descriptors here each, more than is usual for a process. The instances keep theirs."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
