"""What an instance and its host say to each other beside the lanes.

Each incarnation has a control channel to its host, a socket pair that nobody else holds; documents and descriptors
travel on it (`multikernel.shm.channel`). After the host has put a document on it, it raises IPI 0 on the host lane,
so that an instance that sleeps on its lanes looks. The lane itself carries one message only: SYSTEM/SHUTDOWN.

`+ [...]` are descriptors, in that order; whoever receives them closes them, or gives them to whom it hands them.

instance to host

    {"verb": "hello", "epoch": e} + [status, console, lane consumer]
                        its own objects, made and sealed. Once, first. Not answered.
    {"verb": "phase", "phase": "active"}
                        `main` is about to be entered. Not answered.
    {"verb": "ready"}   its first wait, or `kernel.ready()`. Once; not answered.
    {"verb": "ended", "reason": "returned" | "exit" | "exception" | "memory" | "boot", "code": c, "traceback": text}
                        how `main` ended, or why it was never entered. Last; the process ends with status `code`.
                        An end without this document was an exit or a signal; the zygote says which.
    {"verb": "connect", "id": n, "to": name, "capacity": bytes, "timeout": seconds} + [producer, consumer]
                        asks for a link to instance `name`; the objects are its own. Answered:
    {"answer": n, "ok": {"link": l, "peer": id, "peer_name": name, "peer_epoch": e}}
                        + [peer's producer, peer's consumer, socket end, peer's pidfd]
    {"answer": n, "failed": error}
                        a wire error (`multikernel.errors.from_wire`): NotFound, StateError, Timeout ...
    {"verb": "linked", "link": l} + [producer, consumer]
                        takes an offer (below), with objects of its own. Not answered.
    {"verb": "refused", "link": l, "failed": error}
                        refuses one. Not answered.
    {"verb": "resumed", "link": l, "aside": {..} | null} + [producer, consumer]
                        takes over a link (below), with objects of its own that go on where the predecessor's end.
    {"verb": "abandoned", "link": l, "reason": text}
                        cannot. Neither is answered.
    {"verb": "memory", "id": n, "name": name, "size": bytes}
                        asks for a named memory, which is made if it is not there. Answered:
    {"answer": n, "ok": {"size": bytes, "fresh": flag}} + [memory]
                        size: in whole pages; fresh: it was made now, and is all zero. Or with an error.
    {"verb": "unlink", "link": l}
                        it has closed a link. Not answered.
    {"verb": "facing", "link": l, "epoch": e}
                        the incarnation of the peer that it has to do with by that link. Not answered; if there is a
                        newer one, that is pushed, now or when it comes.

host to instance

    {"push": "link", "link": l, "peer": id, "peer_name": name, "peer_epoch": e, "capacity": bytes}
                        + [peer's producer, peer's consumer, socket end, peer's pidfd]
                        an offer: somebody asks for a link. Clients have ids from 512 up, epoch 0 and the name
                        "client-PID". An offer that is not answered in time is void: its socket end is at its end
                        of file, and a late answer is dropped.

    {"push": "resume", "link": l, "capacity": bytes, "peer": id, "peer_name": name, "peer_epoch": e, "asked": flag,
     "aside": flag}
                        + [peer's producer, peer's consumer, predecessor's producer, predecessor's consumer, socket end,
                        peer's pidfd]
                        a link of an earlier incarnation, for its successor to go on with. Only to one whose manifest
                        says "takes_over", after its hello. Without the pidfd the peer has ended, and is due itself.
                        asked: it was this instance that had asked for the link, and not its peer.
                        aside: its first message has ended too many of those before; it is to be left out.
    {"push": "go"}      all of them were answered, and the peers know: the image may be entered.
    {"push": "successor", "link": l, "epoch": e} + [producer, consumer, pidfd]
                        a new incarnation of a peer is there, with these objects; without the pidfd it has ended again.

To a new host of a persistent machine, whose host was killed, an instance says over a control connection, first:

    {"verb": "adopt", "id": n, "protocol": p, "instance": id, "epoch": e, "names": [..]} + [a descriptor for each name]
                        which one it is; the host knows by the peer's pid whether that is true. The descriptors are
                        "image" and those of the extras that it still has, in case that nobody else has. Answered:
    {"answer": n, "ok": {}} + [control channel, machine object, lane producer, bell]
                        in place of those that it was born with; over that channel it says "hello" once more,
                        + [status, console, lane consumer, console's pipe], and whether it is "ready" already.
    {"answer": n, "failed": error}
                        the host does not know it, or knows another: it ends.

and after that "hello", for each sixteen of its named memories, in case that nobody else has them,

    {"verb": "memories", "names": [..]} + [a descriptor for each name]

A link's socket ends are the two sides of one AF_UNIX SOCK_STREAM pair, made by the host. It keeps copies of
both: a side that has ended does not hang up as long as it is due, and the host rings for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

PROTOCOL = 1
"""Version of what is said over control connections and channels. It changes with every change that one side alone would
not understand; sides of different versions refuse each other, and say both."""

LONGEST_TRACEBACK = 6000
"""Characters of a traceback that travel; of a longer one the end, where the error stands."""

INSTANCES = "instances"
"""Name of the descriptor by which an instance is told that it is in a persistent machine, and to outlive its host: a
directory beside the control socket. An open copy of it tells others that an instance lives."""

SYSTEM_VECTOR = 0
"""The IPI on the host lane that says: look at your control channel."""


class Descriptors(NamedTuple):
    """What a new instance is handed by its host, through the zygote, in the order in which it travels."""

    control: int
    """Its end of the control channel."""
    image: int
    """The sealed image."""
    machine: int
    """The machine object, read-only."""
    lane: int
    """The producer object of the host lane, read-only."""
    bell: int
    """Its end of the host lane's socket pair."""
    console_read: int
    """The read end of its console's pipe. The host keeps one too, for what is in the pipe when the instance dies."""
    console_write: int
    """The write end: stdout and stderr."""

    @classmethod
    def of(cls, fds: list[int], extras: Sequence[str]) -> tuple[Self, dict[str, int]]:
        """The descriptors that came with a spawn request, and those that its manifest names besides (`extras`).

        Raises:
            ValueError: they are not as many as there should be.
        """
        own = len(cls._fields)
        if len(fds) != own + len(extras):
            raise ValueError(
                f"{len(fds)} descriptors for an instance; it takes {own} and {', '.join(extras) or 'no'} more"
            )
        return cls(*fds[:own]), dict(zip(extras, fds[own:], strict=True))


def tail(text: str, limit: int) -> str:
    """The last `limit` characters of `text`, from the beginning of a line where there is one; with a mark if cut."""
    if len(text) <= limit:
        return text
    cut = text[-limit:]
    begin = cut.find("\n") + 1
    return "...\n" + cut[begin if begin < len(cut) else 0 :]
