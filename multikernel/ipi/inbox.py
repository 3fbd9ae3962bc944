"""What comes by a link, put in order: IPIs to their handlers, replies to their requests, the rest to `recv`."""

from __future__ import annotations

import operator
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from multikernel._core import ffi, lib
from multikernel.shm.lane_receiver import IPI_WAITS, LaneReceiver, Record
from multikernel.shm.views import View
from multikernel.shm.waiting import AT_ONCE, is_over

from .messages import REPLY, REQUEST, Message

if TYPE_CHECKING:
    from .link import Link

IpiHandler = Callable[[int, int], object]
"""Called with the vector and how often it was raised since the last time: IPIs coalesce."""

PATIENCE = 256
"""Messages that one call drops or puts aside after its time is up, at most: a peer that floods us ends no time-out."""

SERVED = object()
"""Nothing was found yet, but something was done that may have changed what there is."""


def check_handler(vector: int, handler: object) -> None:
    """Refuse a vector that there is not (ValueError), and what is no vector or no handler (TypeError)."""
    if not 0 <= operator.index(vector) < lib.MK_VECTORS:
        raise ValueError(f"vector {vector}: there are 0 to {lib.MK_VECTORS - 1}")
    if not callable(handler):
        raise TypeError(f"a handler is a function of vector and count, not {type(handler).__name__}")


class Keeper(Protocol):
    """Whoever serves more than one link: inside an instance, its kernel."""

    def interrupt(self, vector: int, count: int) -> None:
        """An IPI came by the link."""

    def sleep(self, link: Link, until: int) -> bool:
        """Wait for the link, serving what else there is; False when `until` (CLOCK_MONOTONIC, ns) has come."""

    def forget(self, link: Link) -> None:
        """The link is about to be closed."""

    def waits_on(self) -> LaneReceiver:
        """The lane that it serves besides."""

    def next_due(self) -> int:
        """When `serve` has something to do though nothing came: CLOCK_MONOTONIC, ns; negative: never."""

    def serve(self) -> None:
        """Serve what else there is. For who sleeps on that lane himself: before and after."""


class Inbox:
    """The receiving side of a link.

    Args:
        link: whose it is; for the messages and the keeper.
        receiver: where it all comes from.
        keeper: who serves more than this link; None: nobody.
    """

    def __init__(self, link: Link, receiver: LaneReceiver, keeper: Keeper | None) -> None:
        self._owner = weakref.ref(link)  # a link that is forgotten goes at once, and not with the next collection
        self._receiver = receiver
        self._keeper = keeper
        self._aside: deque[Message] = deque()  # what came while a reply was waited for
        self._awaited: dict[int, Message | None] = {}  # the replies that requests wait for, by id
        self._handlers: dict[int, list[IpiHandler]] = {}
        self.late_replies = 0
        self.on_sorted: Callable[[], object] | None = None
        """Called when something was kept here for somebody else than who has asked."""

    def on_ipi(self, vector: int, handler: IpiHandler) -> None:
        """Call `handler(vector, count)` for IPIs of `vector`."""
        check_handler(vector, handler)
        self._handlers.setdefault(vector, []).append(handler)

    def next(self, until: int, *, hold: bool = False) -> Message | None:
        """The next message for `recv`; None when there was none until the deadline.

        With `hold` its space is not given back until `done`, or until more is asked for.
        """
        return self._await(until, None, hold=hold)

    def reply(self, id_: int, until: int) -> Message | None:
        """The reply to the request `id_`; None when it did not come until the deadline. It is late from then on."""
        self.expect(id_)
        try:
            return self.take_reply(id_, until)
        finally:
            self.forget(id_)

    @contextmanager
    def expecting(self, id_: int) -> Iterator[Callable[[], Message | None]]:
        """A block in which the reply to the request `id_` is not late; its value gives it, or None: not yet."""
        self.expect(id_)
        try:
            yield lambda: self.take_reply(id_, AT_ONCE)
        finally:
            self.forget(id_)

    def expect(self, id_: int) -> None:
        """A reply to the request `id_` is kept from now on, until `forget`."""
        self._awaited[id_ | REPLY] = None

    def take_reply(self, id_: int, until: int) -> Message | None:
        """The reply that is expected; None when it did not come until the deadline. The same every time."""
        return self._await(until, id_ | REPLY)

    def forget(self, id_: int) -> None:
        """It is not expected any more."""
        self._awaited.pop(id_ | REPLY, None)

    def _await(self, until: int, wanted: int | None, *, hold: bool = False) -> Message | None:
        over = False
        looks = PATIENCE
        while True:
            # A handler that ran meanwhile may have received what is waited for here, in a request of its own.
            message = self._kept(wanted)
            if message is not None or not looks:
                return message
            found = self._get(lambda until: self._receiver.receive(until, hold=hold), AT_ONCE if over else until)
            if found is None or (found is SERVED and over):
                return self._kept(wanted)
            if found is not SERVED:
                message = self._message(found)
                if wanted is None and not _answers_request(message):
                    return message
                self._sort(message)
            over = over or is_over(until)
            looks -= over

    def look(self, until: int) -> Any:
        """The next message for `recv` where it lies; None when there was none until the deadline.

        Either a `Message` that is kept here, or a struct mk_message: then the receiver is taken until `give`.
        """
        over = False
        looks = PATIENCE
        while not self._aside and looks:
            found = self._get(self._receiver.look, AT_ONCE if over else until)
            if found is None or (found is SERVED and over):
                break
            if found is not SERVED:
                try:
                    if not _answers_request(found):
                        return found
                    payload = ffi.buffer(found.payload, found.length)[:]
                    message = self._message(Record(payload, found.type, found.subtype, found.id))
                    self._receiver.give(True)
                except BaseException:
                    self._receiver.recover()
                    raise
                self._sort(message)
            over = over or is_over(until)
            looks -= over
        return self._aside[0] if self._aside else None

    def view(self, find: Callable[[], Any]) -> View:
        """A view of what `find` finds by `look`; when its block ends well, that is taken."""
        kept: list[Any] = []  # a message of ours, and what its bytes are read from

        def take() -> tuple[Any, int]:
            found = find()
            if not isinstance(found, Message):
                self._receiver.say_seen()
                return found.payload, found.length
            kept.extend((found, ffi.from_buffer(found.payload)))
            return kept[1], len(found.payload)

        def give(ended_well: bool) -> None:
            if not kept:
                self._receiver.give(ended_well)
            elif ended_well and self._aside and self._aside[0] is kept[0]:
                self._aside.popleft()

        return View(take, give, self._receiver.recover, readonly=True)

    def header(self, found: Any) -> Message:
        """What `look` found as a message without its payload."""
        if isinstance(found, Message):
            return found
        return self._message(Record(b"", found.type, found.subtype, found.id))

    def serve_interrupts(self) -> bool:
        """Run the handlers of IPIs that were raised, and take nothing. Whether there is anything else."""
        if self._receiver.ready:
            self._run_handlers()
        return bool(self._aside) or self._receiver.ready

    def leave(self, found: Any) -> None:
        """What `look` found stays the next."""
        if not isinstance(found, Message):
            self._receiver.give(False)

    def done(self) -> None:
        """Give back what `next` took with `hold`."""
        self._receiver.done()

    def put_back(self, messages: list[Message]) -> None:
        """These were not delivered after all: they are next."""
        self._aside.extendleft(reversed(messages))

    @property
    def waits(self) -> bool:
        """Whether a look is worth its while. No system call."""
        return bool(self._aside) or self._receiver.ready

    @property
    def _link(self) -> Link:
        link = self._owner()
        assert link is not None  # whoever calls is one of its methods
        return link

    def _get(self, get: Callable[[int], Any], until: int) -> Any:
        """What the receiver has, or SERVED after something else; None when there was nothing until the deadline."""
        found = get(until if self._keeper is None else AT_ONCE)
        if found is IPI_WAITS:
            self._run_handlers()
            return SERVED
        if found is None and self._keeper is not None and not is_over(until):
            return SERVED if self._keeper.sleep(self._link, until) else None
        return found

    def _run_handlers(self) -> None:
        """One round of IPIs: each vector once, lowest first."""
        first = 0
        while (raised := self._receiver.take_ipi(first)) is not None:
            first = raised[0] + 1
            if self._keeper is not None:
                self._keeper.interrupt(*raised)
            for handler in self._handlers.get(raised[0], ()):
                handler(*raised)

    def _kept(self, wanted: int | None) -> Message | None:
        if wanted is not None:
            return self._awaited[wanted]
        return self._aside.popleft() if self._aside else None

    def _sort(self, message: Message) -> None:
        """Keep a message for whom it is for; a reply to a request that has given up is dropped and counted."""
        if not _answers_request(message):
            self._aside.append(message)
        elif message.id in self._awaited:
            self._awaited[message.id] = message
        else:
            self.late_replies += 1
        if self.on_sorted is not None:
            self.on_sorted()

    def _message(self, record: Record) -> Message:
        link, again = self._link, self._receiver.again
        return Message(record.type, record.subtype, record.id, link.peer_id, again, record.payload, link)


def _answers_request(message: Any) -> bool:
    return bool(message.id & REPLY and message.id & REQUEST)
