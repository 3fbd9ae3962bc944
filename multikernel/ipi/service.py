"""The serving side of services: objects whose marked methods are called over links."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from multikernel.errors import Closed, MessageTooLarge, Timeout

from .carried import to_plain
from .interface import CANCEL, ERROR, HEADER, ID, RESULT, SERVICE, UNKNOWN, Interface, Method, interface_of, msgspec

if TYPE_CHECKING:
    from .link import Link
    from .messages import Message

ROOM_WITHIN = 1.0
"""Seconds that a reply waits for room, at most: a caller that does not read is not to hold up the others."""


class Service:
    """Objects that answer calls.

    `Kernel.serve` and `Kernel.aserve` do all that is needed in an image that does nothing else. In a loop of one's own:

        store = mk.Service(Store())
        for message in kernel.messages():
            if not store.handle(message):
                ...                                  # no call: a message like any other

    A call whose deadline has passed when its turn comes is not begun. A method that raises answers with its error and
    goes on serving; what is no `Exception` (SystemExit) is raised here.

    Args:
        objects: of classes that mark methods with `multikernel.method`; one of a class.

    Raises:
        TypeError: a class offers nothing, or what cannot be called over a link.
        ValueError: two are of one class.
        Unsupported: msgspec is not installed.
    """

    def __init__(self, *objects: Any) -> None:
        self._encode = msgspec().msgpack.encode
        self._interfaces: list[Interface] = []
        self._methods: dict[tuple[int, int], tuple[Method, Callable[..., Any]]] = {}
        self._tasks: dict[tuple[Link | None, int], asyncio.Task[None]] = {}
        self.expired = 0
        """Calls that were not begun, or not finished, since their deadline had passed."""
        self.unread = 0
        """Replies that were dropped, since their caller made no room for them."""
        for each in objects:
            interface = interface_of(type(each))
            if any(other.digest == interface.digest for other in self._interfaces):
                raise ValueError(f"two objects of class {interface.name}: a call could not say which one it is for")
            self._interfaces.append(interface)
            for method in interface.methods:
                self._methods[interface.digest, method.number] = method, getattr(each, method.name)

    def check_plain(self) -> None:
        """TypeError if a method is `async`: those need `Kernel.aserve`, in an `async def main`."""
        for method, _ in self._methods.values():
            if method.is_async:
                raise TypeError(
                    f"{method.text} is async: serve it by `await kernel.aserve(...)` in an `async def main`"
                )

    def handle(self, message: Message) -> bool:
        """Answer a call, by doing it here and now.

        A request to cancel a call finds it done, as calls of one link are done one after the other.

        Returns:
            False: it is no call. Nothing was done.
        """
        if message.type != SERVICE:
            return False
        found = self._look_up(message)
        if found is None:
            return True
        method, function, arguments, _ = found
        if method.is_async:
            self.check_plain()
        try:
            result = method.call(function, arguments)
        except Exception as error:  # noqa: BLE001 - it is the caller's
            self._fail(message, method, error)
        else:
            self._answer(message, method, result)
        return True

    def start(self, message: Message) -> bool:
        """As `handle`, in asyncio: a call is a task, which is cancelled at its deadline or when its caller asks.

        Returns:
            False: it is no call. Nothing was done.
        """
        if message.type != SERVICE:
            return False
        if message.subtype == CANCEL:
            if len(message.payload) == ID.size and (
                task := self._tasks.get((message.link, ID.unpack(message.payload)[0]))
            ):
                task.cancel()
            return True
        found = self._look_up(message)
        if found is not None:
            key = message.link, message.id
            task = asyncio.get_running_loop().create_task(self._run(message, *found))
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key, None))
        return True

    async def finish(self) -> None:
        """Cancel what is under way, and wait until it has ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(
        self, message: Message, method: Method, function: Callable[..., Any], arguments: tuple[Any, ...], until: int
    ) -> None:
        limit = asyncio.timeout_at(until / 1e9 if until else None)  # its clock is CLOCK_MONOTONIC as well
        try:
            async with limit:
                result = method.call(function, arguments)
                if method.is_async:
                    result = await result
        except Exception as error:  # noqa: BLE001 - it is the caller's
            if limit.expired():
                self.expired += 1
            else:
                self._fail(message, method, error)
        else:
            self._answer(message, method, result)

    def _look_up(self, message: Message) -> tuple[Method, Callable[..., Any], tuple[Any, ...], int] | None:
        """What a call asks for; None after it was refused, or where nothing is to be done."""
        if message.subtype == CANCEL:
            return None
        payload = memoryview(message.payload)
        try:
            digest, until, number = HEADER.unpack_from(payload)
        except struct.error:
            self._say(message, ERROR, to_plain(ValueError("this is no call of a service"), ()))
            return None
        found = self._methods.get((digest, number))
        if found is None:
            self._say(message, UNKNOWN, [[each.name, each.text] for each in self._interfaces])
            return None
        if 0 < until <= time.monotonic_ns():
            self.expired += 1
            return None
        method, function = found
        try:
            return method, function, method.decode_arguments(payload[HEADER.size :]), max(until, 0)
        except (
            ValueError
        ) as error:  # what msgspec raises: for other types than those of the method, and for no MessagePack
            kind = TypeError if isinstance(error, msgspec().ValidationError) else ValueError
            self._fail(message, method, kind(f"{method.text}: {error}"))
        return None

    def _answer(self, message: Message, method: Method, result: Any) -> None:
        try:
            self._say(message, RESULT, result)
        except (TypeError, OverflowError, MessageTooLarge) as error:  # what it returned cannot be sent
            error.add_note(f"{method.text} returned it")
            self._fail(message, method, error)

    def _fail(self, message: Message, method: Method, error: Exception) -> None:
        self._say(message, ERROR, to_plain(error, method.raises))

    def _say(self, message: Message, subtype: int, what: Any) -> None:
        try:
            message.reply(self._encode(what), type=SERVICE, subtype=subtype, timeout=ROOM_WITHIN)
        except Timeout:
            self.unread += 1
        except Closed:
            pass  # it has gone, and wants no answer any more
