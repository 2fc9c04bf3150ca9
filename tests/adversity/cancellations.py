"""The ways in which work is cut off."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

import anyio


async def by_task_cancel(work: Awaitable[None], seconds: float) -> bool:
    """Cancel the task after some time; returns whether there was anything left to cancel."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(seconds)
    cancelled = task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return cancelled


async def by_timeout(work: Awaitable[None], seconds: float) -> bool:
    """Set a limit as asyncio does; returns the same."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return True
    return False


async def by_cancel_scope(work: Awaitable[None], seconds: float) -> bool:
    """Set a limit as anyio does; returns the same."""
    with anyio.move_on_after(seconds) as scope:
        await work
    return scope.cancelled_caught


WAYS = (by_task_cancel, by_timeout, by_cancel_scope)
