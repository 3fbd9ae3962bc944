"""The links that there are, as their host holds them: so that they outlive an incarnation at either end.

Of each side the host has read-only descriptors of its two objects, and its end of the socket pair. When an incarnation
has ended and a successor is due, they are all that is left of its end: the successor gets them, makes objects of its
own that go on where those end, and hands them in; the other side gets these. When none is due the host lets go, and
the other side sees the end of file of its socket; so it does when the host itself has ended.

A party that closes a link says so. What it had sent to a side that is being replaced is kept for the successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from multikernel.errors import CorruptLane, MultikernelError
from multikernel.host import log
from multikernel.host.party import Party
from multikernel.kernel import process
from multikernel.shm import objects
from multikernel.shm.channel import close_all
from multikernel.shm.lane_look import Lane

if TYPE_CHECKING:
    from collections.abc import Callable

    from multikernel.host.deposit import Deposit
    from multikernel.host.incarnation import Incarnation
    from multikernel.host.instance import Instance
    from multikernel.shm.channel import Document

MOST_REDELIVERIES = 3
"""Incarnations that get a message again of which one before died; the next one does not get it."""

Joining: TypeAlias = "tuple[Party, Sequence[int], socket.socket]"
"""A side of a new link: who, its objects [producer, consumer], and its end of the socket pair; all the caller's."""


@dataclass(slots=True)
class _Side:
    """One of the two parties, as far as it is there."""

    id: int
    name: str
    epoch: int
    """Of the objects."""
    objects: list[int]
    """[producer, consumer], read-only."""
    socket: socket.socket
    party: Party | None
    """None: it has ended, and is due or left."""
    told: bool = False
    """A successor of the other side was pushed, and it has not said that it has it."""
    stuck_at: int = -1
    """Where the message begins that the last incarnation had in its hands when it ended."""
    stuck: int = 0
    """How many have ended so."""
    alias: int = -1
    """The id by which this host knows a client that another host had let in."""


@dataclass(slots=True)
class _Link:
    number: int
    capacity: int
    sides: tuple[_Side, _Side]
    over: bool = False
    """One side has closed it, or left: it goes as soon as the other one has what was sent to it."""

    def side(self, party_id: int) -> _Side | None:
        return next((side for side in self.sides if party_id in (side.id, side.alias)), None)

    def other(self, side: _Side) -> _Side:
        return self.sides[side is self.sides[0]]


class KeptLinks:
    """All links of a machine, by number.

    Args:
        deposit: where the next host finds them; None: there will be none.
        set_aside: called with the id of an instance, that of a sender, and the header of the sender's message that was
            set aside, as the instance says it.
    """

    def __init__(self, deposit: Deposit | None, set_aside: Callable[[int, int, object], None]) -> None:
        self._deposit, self._set_aside = deposit, set_aside
        self._links: dict[int, _Link] = {}
        self._strangers: dict[int, int] = {}  # clients of an earlier host that have not come to this one: pidfds by pid
        self._resuming: dict[Incarnation, set[int]] = {}  # links that it was given and has not answered yet

    def keep(self, number: int, capacity: int, one: Joining, other: Joining) -> None:
        """Hold a link, by copies of its descriptors.

        Raises:
            OSError: there are none.
        """
        with contextlib.ExitStack() as undo:
            sides = _side(one, undo), _side(other, undo)
            link = _Link(number, capacity, sides)
            for side in sides:
                self._show(link, side)
                undo.callback(_hide, link, side)
            undo.pop_all()
        self._links[number] = link
        self._hand(link)

    def restore(self, document: Document, fds: list[int], find: Callable[[int], Instance | None]) -> None:
        """Hold a link that an earlier host held: what `_hand` deposited. `find` gives the instances that there are."""
        sides = []
        for number, words in enumerate(document["sides"]):
            producer, consumer, sock = fds[3 * number : 3 * number + 3]
            sides.append(
                _Side(
                    words["id"],
                    words["name"],
                    words["epoch"],
                    [producer, consumer],
                    socket.socket(fileno=sock),
                    None,
                    stuck_at=words["stuck_at"],
                    stuck=words["stuck"],
                )
            )
        link = self._links[document["number"]] = _Link(document["number"], document["capacity"], (sides[0], sides[1]))
        lost = []
        for side, words in zip(sides, document["sides"], strict=True):
            if side.epoch:
                instance = find(side.id)
                if instance is not None and instance.run is not None and instance.run.epoch == side.epoch:
                    side.party = instance.run.party(instance.name)
                elif instance is None or not instance.due:
                    lost.append(side.id)
            elif words["here"]:
                side.party = self._stranger(side, words["pid"], words["started"])
            if not side.epoch and side.party is None:
                lost.append(side.id)
        for side in sides:
            with contextlib.suppress(OSError):
                self._show(link, side)
        for party_id in lost:
            self._end(link, party_id)

    def call_strangers(self) -> None:
        """Wake the clients of an earlier host that wait for a successor, so that they come to this one, which listens.

        They sleep on nothing that an earlier host has had but this socket; who waits for something else sleeps on.
        """
        for link in self._links.values():
            for side in link.sides:
                if side.party is not None and side.party.push is _not_here:
                    _ring(link, side)

    def hand_all(self) -> None:
        """Deposit all of them: there is another zygote."""
        for link in self._links.values():
            self._hand(link)

    def drop(self, number: int) -> None:
        """Let a link go; nothing happens if it is not there."""
        link = self._links.pop(number, None)
        if link is not None:
            for side in link.sides:
                _hide(link, side)
                close_all(side.objects)
                side.socket.close()
            if self._deposit is not None:
                self._deposit.let_go(f"link:{number}")

    def left(self, party_id: int) -> None:
        """A client has left, or an instance has ended without a successor: its links are over."""
        for link in self._of(party_id):
            self._end(link, party_id)

    def told(self, party: Party, document: Document) -> None:
        """A party says something of one of its links: that it has closed it, or which incarnation it faces."""
        number, epoch = document.get("link"), document.get("epoch")
        link = self._links.get(number) if isinstance(number, int) else None
        side = (link.side(party.id) or self._known(link, party)) if link is not None else None
        if link is None or side is None:
            return
        if document.get("verb") == "unlink":
            self._end(link, side.id)
        elif isinstance(epoch, int):
            side.told = False
            if link.other(side).epoch > epoch:
                self._tell(link, side)

    def ended(self, run: Incarnation) -> None:
        """An incarnation is gone; its links wait for a successor, or `left` comes."""
        self._resuming.pop(run, None)
        for link in self._of(run.instance_id):
            side = link.side(run.instance_id)
            if side is None or side.epoch != run.epoch:
                continue
            side.party, side.told = None, False
            if run.was_active:
                _count_stuck(link, side)
                self._hand(link)

    def hand_over(self, run: Incarnation, name: str) -> None:
        """Give a successor the links of its predecessors; it answers for each, and is told to go on after that."""
        waits = self._resuming[run] = set()
        for link in self._of(run.instance_id):
            side = link.side(run.instance_id)
            if side is None:
                continue
            try:
                self._give(link, side, run)
            except OSError as error:
                log.write(f"{name} has lost a link: {error}")
                self.drop(link.number)
                continue
            waits.add(link.number)

    def answered(self, run: Incarnation, document: Document, fds: list[int]) -> None:
        """A successor brings the objects with which it goes on, owned by this call; or it cannot."""
        waits, number = self._resuming.get(run, set()), document.get("link")
        link = self._links.get(number) if isinstance(number, int) and number in waits else None
        side = link.side(run.instance_id) if link is not None else None
        if link is None or side is None:
            close_all(fds)
            return
        waits.discard(link.number)
        try:
            if document.get("verb") != "resumed":
                raise CorruptLane(f"a link was not taken over: {str(document.get('reason'))[:500]}")
            check_halves(fds, side.id, link.capacity)
        except (MultikernelError, OSError) as error:
            close_all(fds)  # what it has at this end is good for nobody
            log.write(str(error))
            self.drop(link.number)
            return
        if side.stuck > MOST_REDELIVERIES:
            side.stuck = 0
            log.write(f"{side.name}: a message of {link.other(side).name} was set aside: {document.get('aside')}")
            self._set_aside(side.id, link.other(side).id, document.get("aside"))
        close_all(side.objects)
        side.objects, side.epoch, side.party, side.told = fds, run.epoch, run.party(side.name), False
        self._hand(link)
        if link.over:
            self.drop(link.number)
            return
        with contextlib.suppress(OSError):
            self._show(link, side)
            self._show(link, link.other(side))
        self._tell(link, link.other(side))

    def is_through(self, run: Incarnation) -> bool:
        """Whether a successor has answered for all links that it was given."""
        return not self._resuming.get(run)

    def settle(self, run: Incarnation) -> None:
        """A successor has become active: what it has not answered for is lost."""
        for number in self._resuming.pop(run, set()):
            self.drop(number)

    def close(self) -> None:
        """Let all of them go here; the next host, if there is one, finds them in the deposit."""
        self._deposit = None
        for number in list(self._links):
            self.drop(number)
        for pid in list(self._strangers):
            self._forget(pid)

    def _of(self, party_id: int) -> list[_Link]:
        return [link for link in self._links.values() if link.side(party_id) is not None]

    def _end(self, link: _Link, party_id: int) -> None:
        """One side wants no more of it. A successor of the other side that is due still gets what was sent to it."""
        side = link.side(party_id)
        if side is None:
            return
        _hide(link, side)
        side.party = None
        other = link.other(side)
        if other.party is None and other.epoch and not link.over:
            link.over = True
            self._hand(link)
        else:
            self.drop(link.number)

    def _give(self, link: _Link, side: _Side, run: Incarnation) -> None:
        """Push to a successor what its predecessors had of a link, and what the other side has."""
        other = link.other(side)
        peer = other.party
        document = {
            "push": "resume",
            "link": link.number,
            "capacity": link.capacity,
            "peer": other.id,
            "peer_name": other.name,
            "peer_epoch": other.epoch,
            "asked": side is link.sides[0],
            "aside": side.stuck > MOST_REDELIVERIES,
        }
        fds = [*other.objects, *side.objects, side.socket.fileno()]
        run.push(document, fds if peer is None else [*fds, peer.pidfd])

    def _tell(self, link: _Link, side: _Side) -> None:
        """Push the other side's newest objects to a side, and ring it. One such push is under way at most."""
        other = link.other(side)
        if side.party is None or side.told:
            return
        fds = list(other.objects)
        if other.party is not None:
            fds.append(other.party.pidfd)
        try:
            side.party.push({"push": "successor", "link": link.number, "epoch": other.epoch}, fds)
        except OSError as error:  # no descriptors, or it has not come to this host: it asks when it needs them
            log.write(f"a successor was not pushed: {error}")
        else:
            side.told = True
        _ring(link, side)

    def _hand(self, link: _Link) -> None:
        """Deposit what the next host needs of it."""
        if self._deposit is None:
            return
        words = [
            {
                "id": side.id,
                "name": side.name,
                "epoch": side.epoch,
                "here": side.party is not None,
                "pid": side.party.pid if side.party else 0,
                "started": process.started(side.party.pid) if side.party and side.party.pid else 0,
                "stuck_at": side.stuck_at,
                "stuck": side.stuck,
            }
            for side in link.sides
        ]
        document = {"number": link.number, "capacity": link.capacity, "sides": words}
        fds = [fd for side in link.sides for fd in (*side.objects, side.socket.fileno())]
        self._deposit.hold(f"link:{link.number}", document, fds)

    def _stranger(self, side: _Side, pid: int, started: int) -> Party | None:
        """A client of an earlier host, by the process that it was; it has not come to this one. None: it has ended."""
        pidfd = self._strangers.get(pid, -1)
        if pidfd < 0:
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                return None
            if process.started(pid) != started:  # looked at after it is held: another has its pid
                os.close(pidfd)
                return None
            self._strangers[pid] = pidfd
            asyncio.get_running_loop().add_reader(pidfd, self._stranger_ended, pid)
        return Party(side.id, side.name, 0, pidfd, _not_here, pid)

    def _stranger_ended(self, pid: int) -> None:
        pidfd = self._forget(pid)
        for link in list(self._links.values()):
            for side in link.sides:
                if side.party is not None and side.party.pidfd == pidfd:
                    self._end(link, side.id)

    def _forget(self, pid: int) -> int:
        pidfd = self._strangers.pop(pid)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        return pidfd

    def _known(self, link: _Link, party: Party) -> _Side | None:
        """The side of a client that an earlier host had let in, and that has come to this one: the same process."""
        for side in link.sides:
            if side.party is not None and side.party.push is _not_here and side.party.pid == party.pid:
                side.alias = party.id
                side.party = dataclasses.replace(party, id=side.id, name=side.name)
                return side
        return None

    def _show(self, link: _Link, side: _Side) -> None:
        """Let whoever supervises a side see the lane that it receives by."""
        if side.party is not None and side.party.inbound is not None:
            other = link.other(side)
            side.party.inbound.add(link.number, other.id, other.objects[0], side.objects[1], link.capacity)


def _side(joining: Joining, undo: contextlib.ExitStack) -> _Side:
    party, fds, sock = joining
    copies: list[int] = []
    undo.callback(close_all, copies)
    for fd in fds:
        copies.append(os.dup(fd))  # noqa: PERF401 what was copied is closed after an error
    own = sock.dup()
    undo.callback(own.close)
    return _Side(party.id, party.name, party.epoch, copies, own, party)


def _not_here(_document: Document, _fds: Sequence[int]) -> None:
    raise OSError("it has not come to this host yet")


def _ring(link: _Link, side: _Side) -> None:
    """Wake a side, as the other one would."""
    with contextlib.suppress(OSError):  # it is full of rings already, or the side is gone
        link.other(side).socket.send(b"!", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def _hide(link: _Link, side: _Side) -> None:
    if side.party is not None and side.party.inbound is not None:
        side.party.inbound.remove(link.number)


def _count_stuck(link: _Link, side: _Side) -> None:
    """An incarnation has ended: if with a message in its hands, was it the same as the one before?"""
    with contextlib.suppress(OSError):
        lane = Lane(link.other(side).objects[0], side.objects[1], link.capacity, link.other(side).id)
        at = lane.released()
        if not 0 < (lane.seen() - at) % 2**64 <= link.capacity:
            side.stuck = 0
        elif at == side.stuck_at:
            side.stuck += 1
        else:
            side.stuck = 1
        side.stuck_at = at


def check_halves(fds: Sequence[int], owner_id: int, capacity: int) -> None:
    """Refuse what is not the two objects of one side of a link. CorruptLane says why; MultikernelError: none came."""
    if not fds:
        raise MultikernelError("a link comes with its objects, and none came: the host may open no more (`ulimit -n`)")
    if len(fds) != 2:
        raise CorruptLane(f"a link is made of a producer and a consumer object, not of {len(fds)} descriptors")
    found = {
        objects.check(fds[0], kind="producer", owner_id=owner_id),
        objects.check(fds[1], kind="consumer", owner_id=owner_id),
    }
    if found != {capacity}:
        raise CorruptLane(f"a link of {capacity} bytes with objects of {sorted(found)} bytes")
