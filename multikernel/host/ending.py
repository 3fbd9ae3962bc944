"""Ways to end an incarnation, and to wait for that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multikernel.host.incarnation import Incarnation
    from multikernel.shm.pages import End


async def make_way(run: Incarnation, within: float) -> None:
    """Halt an incarnation, and kill it if it has not after `within` seconds."""
    run.asked = "halt"
    run.shut_down()
    if not await ends_within(run, within):
        run.forced = True
        run.kill()
    await asyncio.shield(run.over)


async def kill_now(run: Incarnation) -> End:
    """End it at once. One that the zygote is about to fork is ended as soon as there is somebody to be ended."""
    await first_of(run.spawned, run.over)
    run.kill()
    return await asyncio.shield(run.over)


async def first_of(*futures: asyncio.Future[Any], seconds: float | None = None) -> None:
    """Wait until one of them is done, or the time is up. None of them is cancelled."""
    await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


async def ends_within(run: Incarnation, seconds: float | None) -> bool:
    """Wait for its end; whether it came within the time."""
    done, _ = await asyncio.wait([run.over], timeout=seconds)
    return bool(done)
