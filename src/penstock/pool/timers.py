"""When a pool looks after itself: every second, and when a failed connect may be repeated."""

import asyncio
import math
import weakref
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING

from penstock.pool.leaks import report_leaks
from penstock.pool.schedule import INTERVAL, Schedule
from penstock.pool.waiters import Waiter

if TYPE_CHECKING:
    from penstock.pool.keeper import Keeper

__all__ = ["Timers"]

TICK = INTERVAL
"""Seconds between two looks at what upkeep is due, at most, while there is anything to look
after."""
EXPIRE_EVERY = 0.01
"""Seconds between two looks at whose deadline has passed, at least: so late may be who is told,
and so little does it cost where thousands wait."""


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
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._heartbeat_timer: asyncio.TimerHandle | None = None
        self._heartbeat_interval = keeper.policy.admission.heartbeat_interval
        self._expires_at = math.inf

    def wake(self) -> None:
        """See to it that upkeep is looked at regularly."""
        self._schedule.resting = self._keeper.ledger.closed
        self._set()

    def _set(self) -> None:
        if self._tick_timer is None:
            self._tick_timer = self._keeper.loop.call_later(
                min(TICK, self._schedule.interval()), _tick, weakref.ref(self), context=Context()
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

    def answer_in_time(self, waiter: Waiter, now: float) -> None:
        """See to it that somebody who has queued up is answered by its deadline.

        There is one timer for all who wait: most are served before, and one for each would cost
        more than the queue itself.
        """
        self._retry_in_time(now)
        self._beat_later()
        if waiter.deadline < self._expires_at:
            self._expire_at(waiter.deadline, now)

    def _beat_later(self) -> None:
        if self._heartbeat_timer is None:
            self._heartbeat_timer = self._keeper.loop.call_later(
                self._heartbeat_interval, _beat, weakref.ref(self), context=Context()
            )

    def beat(self) -> None:
        """Report that the event loop runs, and come again while anybody waits."""
        self._heartbeat_timer = None
        waiters = self._keeper.ledger.waiters
        if waiters:
            waiters.heartbeat(monotonic())
            self._beat_later()

    def _expire_at(self, when: float, now: float) -> None:
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
        self._expires_at = when
        self._expiry_timer = self._keeper.loop.call_later(
            when - now, _expire, weakref.ref(self), context=Context()
        )

    def expire(self) -> None:
        """Answer all whose deadline has passed, and come again for the next."""
        ledger, now = self._keeper.ledger, monotonic()
        self._expiry_timer, self._expires_at = None, math.inf
        for waiter in [each for each in ledger.waiters.queue if each.deadline <= now]:
            ledger.expire(waiter)
        following = min((each.deadline for each in ledger.waiters.queue), default=math.inf)
        if following < math.inf:
            self._expire_at(max(following, now + EXPIRE_EVERY), now)

    def retry_in_time(self) -> None:
        """See to it that those who wait are served when the next attempt to connect may be made."""
        self._retry_in_time(monotonic())

    def _retry_in_time(self, now: float) -> None:
        delay = self._keeper.ledger.backoff.until - now
        if delay > 0 and self._retry_timer is None:
            self._retry_timer = self._keeper.loop.call_later(delay, self._retry, context=Context())

    def _retry(self) -> None:
        self._retry_timer = None
        self._keeper.ledger.open_for_waiters(monotonic())
        self._keeper.carry_out()
        if self._keeper.ledger.waiters:
            self.retry_in_time()


# Only these timers are left when nobody uses the pool any more: they must not keep it alive.


def _tick(timers: "weakref.ref[Timers]") -> None:
    if (living := timers()) is not None:
        living.tick()


def _beat(timers: "weakref.ref[Timers]") -> None:
    if (living := timers()) is not None:
        living.beat()


def _expire(timers: "weakref.ref[Timers]") -> None:
    if (living := timers()) is not None:
        living.expire()
