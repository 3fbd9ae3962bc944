"""What is compared with ours: a table of channels (see `multikernel.tools.bench.channels`), a small class each.

What is not installed, or does not work here, is left out and named. `pip install .[peers]` gets them all.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field

from multikernel.tools.bench.channels import Channel

STREAMS = {
    "os.pipe": "multikernel.tools.bench.plain:OsPipe",
    "SEQPACKET socketpair": "benches.compare.peers.standard:SeqPacket",
    "multiprocessing.Pipe": "multikernel.tools.bench.plain:MpPipe",
    "multiprocessing.Queue": "benches.compare.peers.standard:MpQueue",
    "multiprocessing.SimpleQueue": "benches.compare.peers.standard:MpSimpleQueue",
    "posix_ipc": "benches.compare.peers.posix_queue:PosixQueue",
    "pyzmq": "benches.compare.peers.zeromq:ZeroMq",
    "faster-fifo": "benches.compare.peers.fifo:FasterFifo",
    "iceoryx2": "benches.compare.peers.iceoryx:Iceoryx",
    "pynng": "benches.compare.peers.nng:Nng",
}
"""Bytes, one message a call."""

BATCHES = {name: STREAMS[name] for name in ("os.pipe", "multiprocessing.Pipe", "faster-fifo")}
"""Those that move many messages by one call."""

WAKING = {name: where for name, where in STREAMS.items() if name != "iceoryx2"} | {
    "iceoryx2": "benches.compare.peers.iceoryx:WakingIceoryx"
}
"""Those that sleep until something comes."""

LOOKING = {"iceoryx2": STREAMS["iceoryx2"]}
"""Those that look until something comes, beside what `multikernel bench` has."""

OBJECTS = {
    "multiprocessing.Pipe": "benches.compare.peers.standard:MpObjectPipe",
    "multiprocessing.Queue": STREAMS["multiprocessing.Queue"],
    "multiprocessing.SimpleQueue": STREAMS["multiprocessing.SimpleQueue"],
    "faster-fifo": "benches.compare.peers.fifo:FasterFifoObjects",
}
"""Any object."""

PAYLOADS = {"os.pipe": "benches.compare.peers.standard:LongPipe"} | {
    name: STREAMS[name] for name in ("multiprocessing.Pipe", "pyzmq", "pynng")
}
"""Bytes of a megabyte, received by those that sleep until they come; iceoryx2 looks."""

IN_PLACE = {"iceoryx2": "benches.compare.peers.iceoryx:InPlaceIceoryx"}
"""Those that are written and read where they lie."""


@dataclass
class Peers:
    """Looks peers up, and keeps what was missing, with the reason."""

    missing: dict[str, str] = field(default_factory=dict)

    def of(self, table: dict[str, str]) -> dict[str, Callable[[int], Channel]]:
        """Those of a table that are here."""
        found = {}
        for name, where in table.items():
            module, _, channel = where.partition(":")
            try:
                found[name] = getattr(importlib.import_module(module), channel)
            except Exception as error:  # noqa: BLE001 - an import may fail in any way; the peer is named, and left out
                self.missing[name] = f"{type(error).__name__}: {error}"
        return found
