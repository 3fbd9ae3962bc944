"""What the calls in C buy: the same ring by the extension, and by cffi as with MULTIKERNEL_HOT_CALLS=cffi."""

from __future__ import annotations

from types import MethodType

from benches.compare.peers import Peers
from benches.compare.rows import Goal, Planned, Row
from multikernel._core import HOT_CALLS, calls
from multikernel.tools.bench import cases
from multikernel.tools.bench.channels import Receive, RingChannel, Send
from multikernel.tools.bench.plain import OsPipe

BY_CFFI = "multikernel by cffi"
GOAL = Goal(least=3.5)  # 7 times a pipe, where that is twice one


class ByCffi(RingChannel):
    """A ring whose calls are those that a process has without the extension."""

    def sender(self) -> Send:
        """`send`, as Python does it."""
        return MethodType(calls.SendCalls.send, self.tx)

    def receiver(self) -> Receive:
        """`recv`, as Python does it."""
        return MethodType(calls.RecvCalls.recv, self.rx)


def halves(_: Peers) -> list[Planned]:
    """Streams, one message a call."""
    if HOT_CALLS != "extension":
        raise RuntimeError(f"both halves are compared, and this process has {HOT_CALLS} alone")
    others = {BY_CFFI: ByCffi, "os.pipe": OsPipe}
    return [Planned(cases.message(size, others), {BY_CFFI: GOAL}) for size in (8, 64, 1024)]


ROWS = {"halves": Row("what the calls in C buy over cffi", halves)}
