"""Waiting for a server within a bound, though the event loop itself may stand still meanwhile."""

import asyncio
from typing import Any

__all__ = ["ended", "heed"]

SLICES = 5


async def ended(task: "asyncio.Task[Any]", seconds: float) -> bool:
    """Wait until a task has ended, and tell whether it has.

    Where the loop stands still, blocked by somebody's code or paused with its machine, an answer
    may be there that nobody could read. So the time is taken in slices, of which a standstill,
    however long, uses up one.

    Args:
        task: Not cancelled by this.
        seconds: The bound, while the loop goes round.
    """
    for _ in range(SLICES):
        done, _ = await asyncio.wait({task}, timeout=seconds / SLICES)
        if done:
            return True
    return False


def heed(task: "asyncio.Task[Any]") -> None:
    """Look at what became of a task that nobody waits for any more: it is not worth a warning."""
    if not task.cancelled():
        task.exception()
