"""``command_timeout`` of the express lane's statements, watched for all of them at once."""

import asyncio
from time import monotonic
from typing import Any

from penstock.pool.record import Record

SHORTEST_WATCHED = 10.0
"""Seconds below which a limit is left to the driver's timers, which are exact but cost a twelfth of
a read."""
CHECK_INTERVAL = 1.0
"""Seconds between two checks of what is running: a statement may be ended so late."""


class CommandTimeout:
    """Cancels what runs for longer than ``command_timeout``, in place of the driver.

    Args:
        seconds: The limit, which the driver has as well.

    Attributes:
        leaves_it_to_the_driver: Whether the limit is too short for this.
        running: The connections that are watched: each user adds its own, and removes it.
    """

    def __init__(self, seconds: float) -> None:
        self.leaves_it_to_the_driver = seconds < SHORTEST_WATCHED
        self._seconds = seconds
        self.running: set[Record] = set()
        self._ended: set[Record] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """The timer's: one that has ended calls nothing any more."""
        self.unlimited: Any = None
        """asyncpg's configuration without the limit, as it was lifted last; None at first."""

    def watch(self) -> None:
        """Begin to check what is running."""
        loop = asyncio.get_running_loop()
        if self._timer is None or loop is not self._loop:
            self._timer, self._loop = loop.call_later(CHECK_INTERVAL, self._check), loop

    def translate_timeout(self, record: Record, error: BaseException) -> BaseException:
        """Return the error to raise: a cancellation that came from here is a ``TimeoutError``."""
        if record not in self._ended:
            return error
        self._ended.discard(record)
        task = asyncio.current_task()
        if not isinstance(error, asyncio.CancelledError) or task is None or task.uncancel() > 0:
            return error
        return TimeoutError()  # as the driver's own

    def _check(self) -> None:
        self._timer = None
        now = monotonic()
        for record in self.running - self._ended:
            holder = record.slot.lease  # None where the pool has taken the connection back
            if holder is not None and now - record.slot.checked_out_at > self._seconds:
                self._ended.add(record)
                holder.cancel()
        if self.running:
            self.watch()
