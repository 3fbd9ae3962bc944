"""Who is at the other end of a link, and what becomes of it: a link belongs to an instance, not to an incarnation.

An incarnation that ends takes its lanes' ends with it, and its successor brings new ones (csrc's resume.h). While one
is due, the link's two lanes are as if the peer was silent; the host rings their socket when the successor's objects are
there, and hangs up when none will come. Neither is needed by a link that is in use: the host's record of the peer
changes before a successor begins to work, and each call looks at that.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from multikernel._core import ffi, lib
from multikernel.errors import Closed, NotOwner
from multikernel.shm.channel import close_all
from multikernel.shm.lane import PeerChanged

if TYPE_CHECKING:
    from collections.abc import Callable

    from multikernel.shm.lane import LaneEnd
    from multikernel.shm.lane_receiver import LaneReceiver
    from multikernel.shm.lane_sender import LaneSender
    from multikernel.shm.pages import MachineView

    from .link import Link

T = TypeVar("T")

HOST_SPEAKS_WITHIN = 1.0
"""Seconds that a link waits for the host to say what has become of a dead instance."""

NEXT_HOST_WITHIN = 60.0
"""The same, where the host was killed and another is about to take over: it may take as long to start as any."""

_CLOSED_ONLY = 0.05
"""Seconds after which a peer that closed the link and is still active is taken to live on."""


class Introducer(Protocol):
    """Whoever has the link's way to the host: inside an instance its kernel, else a program's membership."""

    def take_news(self) -> None:
        """Take what the host has pushed, without waiting: successors go to `Peer.offer`."""

    def tell(self, document: dict[str, Any]) -> None:
        """Say something to the host that is not answered. Never waits, never fails."""

    def patience(self) -> float:
        """Seconds that the host may take to say what has become of a peer: longer where another is about to come."""

    def changing(self, link: Link) -> AbstractContextManager[None]:
        """A block in which the link's ends get another peer: they are in no wait set meanwhile."""


class _Successor:
    """An incarnation of the peer that is there; and which ends of ours have not gone on with it yet."""

    def __init__(self, epoch: int, lanes: list[tuple[LaneEnd, int]], pidfd: int) -> None:
        self.epoch, self.lanes, self.pidfd = epoch, lanes, pidfd

    def close(self) -> None:
        close_all(fd for fd in (*(fd for _, fd in self.lanes), self.pidfd) if fd >= 0)
        self.lanes, self.pidfd = [], -1


class Peer:
    """The other party, as the link sees it.

    Args:
        link: whose peer it is.
        sender, receiver: the link's ends.
        id_: of the party.
        name: of the party.
        epoch: which incarnation of it is at the other end.
        number: the link's, by which the host knows it; 0: no host does.
        machine: where the host says what has become of an instance; None: nobody does.
        introducer: the way to the host; None: there is none.
    """

    def __init__(
        self,
        link: Link,
        sender: LaneSender,
        receiver: LaneReceiver,
        *,
        id_: int,
        name: str,
        epoch: int,
        number: int,
        machine: MachineView | None,
        introducer: Introducer | None,
    ) -> None:
        self.id, self.name, self.epoch, self.number = id_, name, epoch, number
        self._sender, self._receiver = sender, receiver
        self._machine, self._introducer = machine, introducer
        self._changing: Callable[[], AbstractContextManager[None]] = nullcontext
        if introducer is not None:
            owner = _weakly(link)
            self._changing = lambda: introducer.changing(owner())
        self._due = False
        self._renewed = False  # there is another host, with another page
        self._renewed_at = 0.0  # since when, by time.monotonic(): it has known of the peer since then
        self._lock = threading.Lock()  # of what follows: another thread may read what the host has sent
        self._successor: _Successor | None = None
        self._over = False
        self._watch()

    def offer(self, document: dict[str, Any], fds: list[int]) -> None:
        """The host has pushed a successor: [producer, consumer, pidfd], or without the last if that has ended, too.

        From whatever thread; the link goes on with it in its next call. The descriptors are this object's.
        """
        if len(fds) not in (2, 3):
            close_all(fds)
            return
        producer, consumer = fds[:2]
        lanes: list[tuple[LaneEnd, int]] = [(self._receiver, producer), (self._sender, consumer)]
        new = _Successor(document["epoch"], lanes, fds[2] if len(fds) == 3 else -1)
        with self._lock:
            old = self._successor
            if self._over or (old is not None and old.epoch >= new.epoch):
                old = new
            else:
                self._successor = new
        if old is not None:
            old.close()

    def expect(self) -> None:
        """The peer has ended already, and is due."""
        self._become_due()

    @property
    def unsettled(self) -> bool:
        """Whether there is something to be looked at before the next call: a successor is there, or due."""
        return self._due or self._renewed or self._successor is not None

    def through(self, call: Callable[[], T], *, wait: bool = True) -> T:
        """`call()`, over and over while the peer is replaced in its middle.

        Args:
            call: uses the link's ends; may raise PeerChanged, or Closed for a peer that is gone.
            wait: for the host to say what has become of a peer that is gone, for HOST_SPEAKS_WITHIN at most. False: it
                is taken to be due until the host has said otherwise.

        Raises:
            Closed: the peer is gone, and has no successor.
            Whatever `call` raises.
        """
        while True:
            if self._due or self._renewed or self._successor is not None:  # as `unsettled`, without another call
                self._look()
            try:
                return call()
            except PeerChanged:
                self.changed(wait=wait)
            except Closed:
                if self._closed_here or not self.goes_on(wait=wait):
                    raise

    def goes_on(self, *, wait: bool) -> bool:
        """After Closed: whether a successor of the peer is due. See `through`."""
        self._sender.look_for_peer()  # what one end knows both say: nothing is sent to one that is gone
        gone = time.monotonic()
        while (outlook := self.outlook(gone)) == "unknown" and wait:
            time.sleep(0.001)  # noqa: TID251 the host writes its page and rings nobody
        if outlook == "over" or (outlook == "unknown" and (self._hung_up or self._receiver.peer_closed)):
            return False
        self._become_due()
        return True

    def outlook(self, gone: float) -> Literal["over", "due", "unknown"]:
        """What the host says of a peer that is gone since then, by time.monotonic()."""
        machine, within = self._machine, HOST_SPEAKS_WITHIN
        if self._introducer is not None:
            self._introducer.take_news()
            if not self._hung_up:  # else nobody has the link who could go on with it: no other host will, either
                within = self._introducer.patience()
        waited = time.monotonic() - max(gone, self._renewed_at)  # each host has its time to say it
        if machine is None or not 0 < self.id < lib.MK_CLIENT_ID or waited >= within:
            return "over"
        try:
            record = machine.instance(self.id)
        except ValueError:  # the machine was closed here: nobody will say anything
            return "over"
        if record is None or record.name != self.name:
            return "over"
        closed = self._receiver.peer_closed
        if record.due or record.epoch != self.epoch:
            # Hung up by the host as well: it has given the link up.
            if self._hung_up or closed or not self.number:
                return "over"
            # What a host said that was killed since is not the last word; and the next one has to know of us.
            return "unknown" if within > HOST_SPEAKS_WITHIN else "due"
        if record.state not in ("active", "standby"):
            return "over"
        # It lives, and closed this link only.
        return "over" if closed and waited > _CLOSED_ONLY else "unknown"

    def renewed(self) -> None:
        """There is another host, whose page is at the same place. From whatever thread."""
        self._renewed_at = time.monotonic()
        self._renewed = True

    def settle(self) -> None:
        """Go on with a successor that is there, if none of the ends is in use."""
        if self.unsettled:
            self._look()

    def forget(self) -> None:
        """The link is used no more: whoever comes is not taken."""
        with self._lock:
            self._over = True
            successor, self._successor = self._successor, None
        if successor is not None:
            successor.close()

    def close(self) -> None:
        """The link is closed here, and the host is told so."""
        self.forget()
        if self._introducer is not None and self.number:
            self._introducer.tell({"verb": "unlink", "link": self.number})

    @property
    def _hung_up(self) -> bool:
        return any(end.view().hung_up for end in (self._receiver, self._sender))  # known to who has looked

    @property
    def _closed_here(self) -> bool:
        return self._receiver.closed or self._sender.closed

    def _watch(self) -> None:
        """Be told of what the host publishes of the peer after this."""
        if self._machine is None or not 0 < self.id < lib.MK_CLIENT_ID or self._introducer is None:
            return
        try:
            page = self._machine.pointer
        except ValueError:  # the machine was closed here
            page = ffi.NULL
        for end in (self._sender, self._receiver):
            try:
                end.watch_fate(page, self.id)
            except NotOwner:  # a view of it is open: it asks again after that
                continue
        record = self._record()
        if record is not None and record.epoch > self.epoch:  # which was published before, and may not be again
            self._become_due()

    def changed(self, *, wait: bool) -> None:
        """The host has published something of the peer: if that is a new incarnation, its objects have been sent."""
        self._watch()
        begin = time.monotonic()
        while True:
            self._look()
            record = self._record()
            if record is None or record.epoch == self.epoch or self._closed_here or self._hung_up:
                return
            self._become_due()  # whatever it was, it is not the one that we know
            if self._successor is None and (not wait or time.monotonic() - begin > HOST_SPEAKS_WITHIN):
                return
            if self._successor is None and record.due:
                return  # it is not as far yet, and the host rings when it is
            time.sleep(0.001)  # noqa: TID251 a queue of the host's is between

    def _record(self) -> Any:
        if self._machine is None:
            return None
        try:
            return self._machine.instance(self.id)
        except ValueError:
            return None

    def _become_due(self) -> None:
        """Take the peer for one that is silent, until its successor comes."""
        ends = self._sender, self._receiver
        # By the host, if it was due already, and for a successor that is sent: which another thread may have received
        # and not offered here yet. So the host is told what we have, sends it again, and rings again.
        rung = any(end.view().gone for end in ends)
        with self._changing():
            for end in ends:
                try:
                    end.due()
                except NotOwner:  # a view of it is open: it finds out later
                    continue
        if rung or not self._due:
            self._due = True
            self._face()

    def _face(self) -> None:
        """Tell the host which incarnation this link has to do with: a newer one is pushed then."""
        if self._introducer is not None:
            self._introducer.tell({"verb": "facing", "link": self.number, "epoch": self.epoch})

    def _look(self) -> None:
        """Take what the host has sent; go on with a successor, if there is one, with each end that is not in use."""
        if self._introducer is not None:
            self._introducer.take_news()
        if self._renewed:
            self._renewed = False
            self._watch()
            self._face()
        with self._lock:
            successor, self._successor = self._successor, None
        if successor is None:
            return
        if successor.epoch <= self.epoch:
            successor.close()
            return
        left = []
        try:
            with self._changing():
                for end, fd in successor.lanes:
                    if not _resume(end, fd, successor.pidfd):
                        left.append((end, fd))
        except BaseException:
            successor.close()
            raise
        close_all(fd for end, fd in successor.lanes if (end, fd) not in left)
        successor.lanes = left
        if left:
            self._keep(successor)
            return
        self.epoch, self._due = successor.epoch, successor.pidfd < 0
        successor.close()
        self._watch()
        self._face()

    def _keep(self, successor: _Successor) -> None:
        """An end was in use: later. Unless a newer one has come meanwhile."""
        with self._lock:
            if self._successor is None and not self._over:
                self._successor = successor
                return
        successor.close()


def _resume(end: LaneEnd, fd: int, pidfd: int) -> bool:
    """Have an end go on with a successor's object. False: it is in use."""
    copy = os.dup(pidfd) if pidfd >= 0 else -1
    try:
        end.resume(fd, copy)
    except BaseException as error:
        if copy >= 0:
            os.close(copy)
        if isinstance(error, NotOwner):
            return False
        raise
    return True


def _weakly(link: Link) -> Callable[[], Link]:
    reference = weakref.ref(link)

    def there() -> Link:
        found = reference()
        assert found is not None  # whoever calls is one of its methods
        return found

    return there
