"""Who is linked to whom: the host makes the introduction, and takes no part in what is said.

Each side makes its own objects; the host checks what it is given, makes the link's socket pair, and hands each side
the other's descriptors, one end of the pair, and a pidfd of the other's process. What it keeps of them, for who comes
after an incarnation, is `multikernel.host.kept`'s. The documents stand in `multikernel.kernel.protocol`; a client asks
with the same ones over its control connection.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from multikernel.errors import Closed, MultikernelError, ResourceError, Timeout, from_wire
from multikernel.host.kept import check_halves
from multikernel.host.states import refused
from multikernel.shm.channel import close_all
from multikernel.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multikernel.host.answers import Answer
    from multikernel.host.incarnation import Incarnation
    from multikernel.host.instance import Instance
    from multikernel.host.kept import KeptLinks
    from multikernel.host.party import Party
    from multikernel.host.registry import Registry
    from multikernel.host.request import Request
    from multikernel.shm.channel import Document


MOST_UNTAKEN = 16
"""Offers that one incarnation has not answered, those included that are void by now. Their descriptors are in flight,
and the system allows each user (but root) no more of those than a process may open: one instance that does not look
must not use them up for everybody.
"""


@dataclass(slots=True)
class _Offer:
    """A link that the asked instance has not answered yet."""

    run: Incarnation
    capacity: int
    answer: asyncio.Future[list[int]]


class Broker:
    """Makes links. `registry` says who is there to be linked to."""

    def __init__(self, registry: Registry, kept: KeptLinks) -> None:
        self._registry, self._kept = registry, kept
        self._offers: dict[int, _Offer] = {}
        self._untaken: WeakKeyDictionary[Incarnation, set[int]] = WeakKeyDictionary()
        self._taken = asyncio.Event()
        self._numbers = itertools.count(time.monotonic_ns())  # those of an earlier host are none of these

    async def serve(self, party: Party, request: Request) -> Answer:
        """Answer a `connect` of `party`; the same from an instance and from a client. Raises as `connect` does."""
        capacity, within = request.integer("capacity"), request.seconds("timeout")
        return await self.connect(party, request.text("to"), capacity, within, request.descriptors(2))

    async def connect(self, party: Party, to: str, capacity: int, within: float, fds: Sequence[int]) -> Answer:
        """Link `party`, whose objects `fds` are, to the instance called `to`.

        Returns:
            What answers the request, and its descriptors, which are the caller's to close.

        Raises:
            NotFound, StateError: no such instance, or it is not active.
            ResourceError: the link is larger than what the instance has for it, or is to itself.
            CorruptLane: `fds` are not what they should be.
            Timeout: it is active and has not answered within `within` seconds.
            Closed: it ended meanwhile. Or any error that it answers with.
        """
        deadline = time.monotonic() + within
        instance = self._registry.find(to)
        run = _active(instance)
        # One that has not read its last offers gets no more of them: they would only pile up.
        if not await run.wire.keeps_up(within) or not await self._has_room(run, deadline):
            raise _busy(to, within)
        run = _active(instance)
        if instance.id == party.id:
            raise ResourceError(f"{to!r} cannot be linked to itself", name=to)
        _check_fits(instance, capacity, self._registry.room_in(instance))
        check_halves(fds, party.id, capacity)
        link = next(self._numbers)
        # Unlike a pair of descriptors, these close themselves on every way out.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours, theirs:
            offer = _Offer(run, capacity, asyncio.get_running_loop().create_future())
            self._offers[link] = offer
            try:
                run.push(
                    {
                        "push": "link",
                        "link": link,
                        "peer": party.id,
                        "peer_name": party.name,
                        "peer_epoch": party.epoch,
                        "capacity": capacity,
                    },
                    [*fds, theirs.fileno(), party.pidfd],
                )
                self._untaken.setdefault(run, set()).add(link)
                halves = await _first_answer(offer, deadline)
                if halves is None:
                    raise _busy(to, within)
            finally:
                del self._offers[link]
            try:
                self._kept.keep(link, capacity, (party, fds, ours), (run.party(instance.name), halves, theirs))
                pidfd = os.dup(run.pidfd)
            except OSError:
                close_all(halves)
                self._kept.drop(link)
                raise
            ok = {"link": link, "peer": instance.id, "peer_name": instance.name, "peer_epoch": run.epoch}
            return ok, [*halves, ours.detach(), pidfd]

    def heard(self, instance: Instance, document: Document, fds: list[int]) -> None:
        """An instance's answer to an offer. One to no offer of its own, or one that is void by now, is dropped."""
        link = document.get("link")
        if instance.run is not None and isinstance(link, int):
            self._untaken.get(instance.run, set()).discard(link)
            self._taken.set()
        offer = self._offers.get(link) if isinstance(link, int) else None
        if offer is None or offer.run is not instance.run or offer.answer.done():
            close_all(fds)
            return
        try:
            if document.get("verb") == "refused":
                raise _refusal(document)
            check_halves(fds, instance.id, offer.capacity)
        except (MultikernelError, OSError) as error:
            close_all(fds)
            offer.answer.set_exception(error)
        else:
            offer.answer.set_result(fds)

    def ended(self, run: Incarnation) -> None:
        """An incarnation is gone: what it was offered, it will not answer."""
        self._untaken.pop(run, None)
        self._taken.set()
        for offer in self._offers.values():
            if offer.run is run and not offer.answer.done():
                offer.answer.set_exception(Closed(f"instance {run.instance_id} ended before it took the link"))

    async def _has_room(self, run: Incarnation, deadline: float) -> bool:
        """Wait until `run` has few enough offers before it; False when `deadline` has come."""
        while len(self._untaken.get(run, ())) >= MOST_UNTAKEN:
            self._taken.clear()
            try:
                await asyncio.wait_for(self._taken.wait(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return False
        return True


def _active(instance: Instance) -> Incarnation:
    """Its running incarnation, if it is active."""
    if instance.run is None or instance.state != "active":
        raise refused(instance.name, instance.state, "connect to")
    return instance.run


async def _first_answer(offer: _Offer, deadline: float) -> list[int] | None:
    await asyncio.wait([offer.answer], timeout=max(0.0, deadline - time.monotonic()))
    return offer.answer.result() if offer.answer.done() else None


def _busy(name: str, within: float) -> Timeout:
    return Timeout(
        f"{name!r} is active, but busy: it has not taken the link within {within:g} s. It does when it looks for "
        "messages next.",
        name=name,
        timeout=within,
    )


def _check_fits(instance: Instance, capacity: int, left: int) -> None:
    if capacity > left:
        raise ResourceError(
            f"a link of {format_size(capacity)} each way does not fit into {instance.name!r}: of its "
            f"{format_size(instance.memory)}, {format_size(max(left, 0))} are left beside image, console and named "
            "memory. Ask for less, or create it with more memory.",
            asked=capacity,
            free=max(left, 0),
        )


def _refusal(document: Document) -> MultikernelError:
    failed = document.get("failed")
    return from_wire(failed if isinstance(failed, dict) else {})
