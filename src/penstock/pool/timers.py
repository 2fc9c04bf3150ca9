"""When a pool looks after itself: every second, and when a failed connect may be repeated."""

import asyncio
import weakref
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING

from penstock.pool.leaks import report_leaks
from penstock.pool.schedule import Schedule

if TYPE_CHECKING:
    from penstock.pool.keeper import Keeper

__all__ = ["Timers"]

TICK = 1.0
"""Seconds between two looks at what upkeep is due, while there is anything to look after."""


class Timers:
    """The timers of one pool; they run in no request's context.

    Args:
        keeper: Who looks after the pool.
        schedule: What is due.
    """

    def __init__(self, keeper: "Keeper", schedule: Schedule) -> None:
        self._keeper = keeper
        self._schedule = schedule
        self._tick_timer: asyncio.TimerHandle | None = None
        self._retry_timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """See to it that upkeep is looked at regularly."""
        self._schedule.resting = self._keeper.ledger.closed
        self._set()

    def _set(self) -> None:
        if self._tick_timer is None:
            self._tick_timer = self._keeper.loop.call_later(
                TICK, _tick, weakref.ref(self), context=Context()
            )

    def tick(self) -> None:
        """Do what is due, and come again while there is anything to look after."""
        self._tick_timer = None
        keeper, now = self._keeper, monotonic()
        try:
            keeper.retire_dead()
            self._schedule.run(now)
            report_leaks(keeper, now)
            keeper.carry_out()
        finally:
            fills = keeper.policy.min_idle and not self._schedule.resting
            if keeper.ledger.open or keeper.ledger.waiters or fills:
                self._set()

    def retry_in_time(self) -> None:
        """See to it that those who wait are served when the next attempt to connect may be made."""
        delay = self._keeper.ledger.backoff.until - monotonic()
        if delay > 0 and self._retry_timer is None:
            self._retry_timer = self._keeper.loop.call_later(delay, self._retry, context=Context())

    def _retry(self) -> None:
        self._retry_timer = None
        self._keeper.ledger.open_for_waiters(monotonic())
        self._keeper.carry_out()
        if self._keeper.ledger.waiters:
            self.retry_in_time()


def _tick(timers: "weakref.ref[Timers]") -> None:
    # Only this timer is left when nobody uses the pool any more: it must not keep it alive.
    if (living := timers()) is not None:
        living.tick()
