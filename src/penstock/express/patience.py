"""How long a statement may take, without a timer for each."""

import asyncio
from time import monotonic
from typing import Any

from penstock.pool.record import Record

__all__ = ["Patience"]

SHORTEST = 10.0
"""Seconds below which a limit is left to the driver's own timers, which are exact. To set one and
to take it back costs a twelfth of a read."""
LOOK_EVERY = 1.0
"""Seconds between two looks at what is running: so late may be what ends a statement."""


class Patience:
    """Ends what runs for longer than ``command_timeout``, in the place of the driver.

    Args:
        seconds: The limit, which the driver has as well.

    Attributes:
        leaves_it_to_the_driver: Whether the limit is too short for this.
        running: The connections that are watched; whoever uses one keeps this.
        unlimited: The configuration of asyncpg's connections while they are watched, without a
            limit; None until :meth:`without_limit` was asked for it.
    """

    def __init__(self, seconds: float) -> None:
        self.leaves_it_to_the_driver = seconds < SHORTEST
        self._seconds = seconds
        self.running: set[Record] = set()
        self._ended: set[Record] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """The timer's: one that has ended calls nothing any more."""
        self.unlimited: Any = None

    def without_limit(self, limited: Any) -> Any:
        """Return a connection's configuration without the limit."""
        self.unlimited = limited._replace(command_timeout=None)
        return self.unlimited

    def watch(self) -> None:
        """Begin to look at what is running, once something is."""
        loop = asyncio.get_running_loop()
        if self._timer is None or loop is not self._loop:
            self._timer, self._loop = loop.call_later(LOOK_EVERY, self._look), loop

    def explained(self, record: Record, error: BaseException) -> BaseException:
        """Return the error to raise: a cancellation that came from here is a ``TimeoutError``."""
        if record not in self._ended:
            return error
        self._ended.discard(record)
        task = asyncio.current_task()
        if not isinstance(error, asyncio.CancelledError) or task is None or task.uncancel() > 0:
            return error
        return TimeoutError()  # as the driver's own

    def _look(self) -> None:
        self._timer = None
        now = monotonic()
        for record in self.running - self._ended:
            borrower = record.slot.loan  # None where the pool has taken the connection back
            if borrower is not None and now - record.slot.lent_at > self._seconds:
                self._ended.add(record)
                borrower.cancel()
        if self.running:
            self.watch()
