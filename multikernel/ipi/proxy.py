"""The calling side of services: proxies whose methods are called over a link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from multikernel.errors import Closed, MultikernelError, NotOwner
from multikernel.shm.waiting import deadline

from .carried import from_plain
from .interface import (
    CALL,
    CANCEL,
    ERROR,
    HEADER,
    ID,
    RESULT,
    SERVICE,
    UNKNOWN,
    Interface,
    Method,
    interface_of,
    msgspec,
)
from .messages import REQUEST

if TYPE_CHECKING:
    from .link import Link
    from .messages import Message
    from .pending import Pending

P = ParamSpec("P")
R = TypeVar("R")


def begin(method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Call[R]:
    """Send a call of a proxy's method and do not wait for it: several can be under way.

        calls = [mk.begin(store.get, key) for key in keys]
        values = [call.result() for call in calls]

    Raises:
        TypeError: `method` is no method of a proxy that `Link.proxy` made, or these are not its arguments.
    """
    if not isinstance(method, _Method):
        raise TypeError(f"begin takes a method of a proxy, as in begin(store.get, key), not {method!r}")
    return cast("Call[R]", method.begin(*args, **kwargs))


class Call(Generic[R]):
    """A call that is under way. Made by `begin`; belongs to the link's thread."""

    def __init__(self, method: _Method, pending: Pending, until: int) -> None:
        self._method, self._pending, self._until = method, pending, until
        self._message: Message | None = None
        self._cancelled = False

    def done(self) -> bool:
        """Whether `result` would return or raise at once. Does not wait."""
        if self._message is None and not self._cancelled:
            self._message = self._pending.try_reply()
        return self._message is not None or self._cancelled

    def result(self) -> R:
        """What the method returned, or raises what it raised; waits until the call's deadline. The same every time.

        Raises:
            concurrent.futures.CancelledError: it was cancelled.
            TimeoutError: it did not come in time. The service does not begin it any more.
            Closed: the other party is gone.
        """
        if self._cancelled:
            raise CancelledError
        if self._message is None:
            self._message = self._pending.reply_by(self._until, self._method.timeout)
        return cast("R", self._method.result(self._message))

    def cancel(self) -> None:
        """Want no result any more. A service in asyncio stops it; one that is not has begun it, or will."""
        if self.done():
            return
        self._cancelled = True
        self._pending.forget()
        self._method.cancel(self._pending.id)


class _Callable:
    """A method of a service at the other end of a link."""

    def __init__(self, link: Link, interface: Interface, method: Method, timeout: float | None) -> None:
        self._link, self._interface, self._method, self.timeout = link, interface, method, timeout
        self._encode = msgspec().msgpack.encode

    def packed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, int]:
        """The payload of a call, and its deadline."""
        until = deadline(self.timeout)
        method = self._method
        header = HEADER.pack(self._interface.digest, max(until, 0), method.number)
        return header + self._encode(method.bind(args, kwargs)), until

    def result(self, message: Message) -> Any:
        """What a reply says; raises what it says was raised."""
        if message.type != SERVICE:
            raise MultikernelError(
                f"{self._link.peer_name!r} answered with a message of type {message.type:#x}, and so not as a service: "
                "its image has to serve one, by kernel.serve"
            )
        if message.subtype == RESULT:
            try:
                return self._method.decode_result(message.payload)
            except ValueError as error:  # what msgspec raises
                raise TypeError(f"{self._where()} returned what it should not: {error}") from None
        plain = msgspec().msgpack.decode(message.payload)
        if message.subtype == ERROR:
            raise from_plain(plain, self._method.raises, self._where())
        raise self._mismatch(plain if message.subtype == UNKNOWN and isinstance(plain, list) else [])

    def cancel(self, id_: int) -> None:
        """Tell the service that nobody waits for this call any more, if there is room for it and anybody to tell."""
        try:
            self._link.try_send(ID.pack(id_), type=SERVICE, subtype=CANCEL)
        except (Closed, NotOwner):
            pass

    def _where(self) -> str:
        return f"{self._link.peer_name!r}, {self._interface.name}.{self._method.name}"

    def _mismatch(self, there: list[Any]) -> MultikernelError:
        texts = [str(each[1]) for each in there if isinstance(each, list) and len(each) == 2]
        peer = self._link.peer_name
        return MultikernelError(
            f"{peer!r} does not serve {self._interface.name} as it is known here. Load the same version on both sides."
            f"\nHere: {self._interface.text}\nThere: " + ("\n".join(texts) or "nothing"),
            service=self._interface.name,
            here=self._interface.text,
            there=tuple(texts),
        )

    def __repr__(self) -> str:
        return f"<{self._method.text} of {self._link.peer_name}>"


class _Method(_Callable):
    """Called, it waits."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        payload, _ = self.packed(args, kwargs)
        return self.result(self._link.request(payload, type=SERVICE, subtype=CALL, timeout=self.timeout))

    def begin(self, *args: Any, **kwargs: Any) -> Call[Any]:
        """Send a call, and do not wait for its result."""
        payload, until = self.packed(args, kwargs)
        return Call(self, self._link.begin(payload, type=SERVICE, subtype=CALL, timeout=self.timeout), until)


class _AsyncMethod(_Callable):
    """Called, it is awaited."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        payload, _ = self.packed(args, kwargs)
        number = self._link.next_id()
        try:
            return self.result(
                await self._link.arequest(payload, type=SERVICE, subtype=CALL, timeout=self.timeout, id=number)
            )
        except asyncio.CancelledError:
            self.cancel(number | REQUEST)
            raise


class _Proxy:
    def __init__(self, link: Link, service: type, timeout: float | None, kind: type[_Callable]) -> None:
        interface = interface_of(service)
        deadline(timeout)  # raises what is wrong with it
        self._what = f"<proxy of {interface.name} of {link.peer_name}>"
        for method in interface.methods:
            setattr(self, method.name, kind(link, interface, method, timeout))

    def __repr__(self) -> str:
        return self._what


def proxy(link: Link, service: type[R], timeout: float | None) -> R:
    """See `Link.proxy`."""
    return cast("R", _Proxy(link, service, timeout, _Method))


def async_proxy(link: Link, service: type, timeout: float | None) -> Any:
    """See `Link.aproxy`."""
    return _Proxy(link, service, timeout, _AsyncMethod)
