"""Turns of the event loop amid work that waits for nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from time import monotonic
from typing import TypeVar

__all__ = ["TURN_INTERVAL", "Turns", "in_turns"]

_T = TypeVar("_T")
TURN_INTERVAL = 0.002
"""Seconds of work between two turns: others wait no longer than for a statement, and the turns
themselves, of some microseconds, cost next to nothing."""


class Turns:
    """Gives the event loop a turn as often as is due.

    Args:
        clock: Says the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._taken_at = clock()

    def are_due(self) -> bool:
        """Return whether the work has gone on for long enough; cheap, and asked at each step."""
        return self._clock() - self._taken_at >= TURN_INTERVAL

    async def take(self) -> None:
        """Let others run."""
        await asyncio.sleep(0)
        self._taken_at = self._clock()


async def in_turns(items: Iterable[_T]) -> AsyncIterator[_T]:
    """Give items that are at hand, or made without a wait, and the event loop its turns."""
    turns = Turns()
    for item in items:
        yield item
        if turns.are_due():
            await turns.take()
