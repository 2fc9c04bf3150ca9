"""The service's pool while it is under load."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["PoolPeaks", "watch_pool"]

_LOOK_EVERY = 0.2


@dataclass(slots=True)
class PoolPeaks:
    """The highest numbers that ``/pool-stats`` showed, each of one worker at one moment.

    Args:
        samples: Answers that were looked at.
        size: Connections that a worker's pool keeps.
        limit: Connections that it may have open.
        checked_out: Most connections that were lent at once.
        overflow: Most connections above ``size``.
        utilisation: Largest share of ``limit`` that was lent, from 0.0 to 1.0.
    """

    samples: int = 0
    size: int = 0
    limit: int = 0
    checked_out: int = 0
    overflow: int = 0
    utilisation: float = 0.0

    def add(self, pool: dict[str, float]) -> None:
        """Count one reading."""
        self.samples += 1
        self.size = int(pool["size"])
        self.limit = int(pool["limit"])
        self.checked_out = max(self.checked_out, int(pool["checked_out"]))
        self.overflow = max(self.overflow, int(pool["overflow"]))
        self.utilisation = max(self.utilisation, pool["utilisation"])


@asynccontextmanager
async def watch_pool(ask: Callable[[str], Awaitable[Any]]) -> AsyncIterator[PoolPeaks]:
    """Look at ``/pool-stats`` again and again while the block runs.

    Args:
        ask: Returns the JSON under a path, or None where there was no good answer.
    """
    peaks = PoolPeaks()

    async def look() -> None:
        while True:
            if answer := await ask("/pool-stats"):
                peaks.add(answer["default"])
            await asyncio.sleep(_LOOK_EVERY)

    looking = asyncio.create_task(look())
    try:
        yield peaks
    finally:
        looking.cancel()
        await asyncio.wait([looking])
