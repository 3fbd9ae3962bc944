"""Answers requests: each is worked on by a task of its own, so that none waits for another's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from multikernel.errors import MessageTooLarge, MultikernelError, to_wire
from multikernel.shm.channel import Document, close_all

if TYPE_CHECKING:
    from multikernel.host.request import Request

Answer: TypeAlias = tuple[dict[str, Any], list[int]]
"""What follows "ok", and descriptors that are closed once they are on their way."""

Send: TypeAlias = Callable[[Document, list[int]], None]

MOST_REQUESTS = 1024
"""Requests of one client, or instance, that are worked on at a time; twice as many as there can be instances to wait
for, and not so many that their answers, if all come at once, are more than a peer may leave unread. More are refused,
and not only left unread: else nothing could be asked for any more that ends them, a kill least of all.
"""

_LONGEST_TEXT = 2000  # characters of an error's texts, when all of it does not fit a document


class Asker(Protocol):
    """Whose requests are answered."""

    busy: int
    """How many of them are being worked on."""


class Answers:
    """The requests that are being worked on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, asker: Asker, request: Request, work: Coroutine[Any, Any, Answer], send: Send) -> None:
        """Work on a request, owned from here on, and `send` its answer; at once, if its asker has too many of them."""
        if asker.busy >= MOST_REQUESTS:
            work.close()
            request.close()
            _send_failure(request.number, _too_many(), send)
            return
        asker.busy += 1
        task = self._loop.create_task(self._answer(asker, request, work, send))
        self._tasks.add(task)  # the loop alone would let it be collected
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, asker: Asker, request: Request, work: Coroutine[Any, Any, Answer], send: Send) -> None:
        try:
            ok, fds = await work
        except (MultikernelError, OSError, ValueError) as error:
            _send_failure(request.number, _as_ours(error), send)
        except Exception as error:  # noqa: BLE001 - a mistake of ours ends neither the host nor the asker's wait
            self._loop.call_exception_handler({"message": f"request {request.verb}", "exception": error})
            _send_failure(request.number, error, send)
        else:
            try:
                send({"answer": request.number, "ok": ok}, fds)
            except OSError as error:
                _send_failure(request.number, _as_ours(error), send)
            finally:
                close_all(fds)
        finally:
            request.close()
            asker.busy -= 1


def _too_many() -> MultikernelError:
    return MultikernelError(
        f"{MOST_REQUESTS} requests of this process are not answered yet, and the host takes no more of them: most will "
        "wait for an instance to end. Let some come back first.",
        limit=MOST_REQUESTS,
    )


def _as_ours(error: Exception) -> Exception:
    """An error that says where it comes from: a plain one of the system's is of the host, not of who reads it."""
    if isinstance(error, MultikernelError) or not isinstance(error, OSError):
        return error
    return MultikernelError(
        f"the host cannot do that: {error.strerror or error}. Nothing has changed. "
        "If descriptors are short, `ulimit -n` shows and sets how many a process may have."
    )


def _send_failure(number: object, error: BaseException, send: Send) -> None:
    failed = to_wire(error)
    try:
        send({"answer": number, "failed": failed}, [])
    except MessageTooLarge:
        fields = {name: _cut(value) for name, value in failed["fields"].items() if isinstance(value, str | int)}
        send({"answer": number, "failed": {**failed, "message": _cut(failed["message"]), "fields": fields}}, [])


def _cut(value: str | int) -> str | int:
    return value[:_LONGEST_TEXT] if isinstance(value, str) else value
