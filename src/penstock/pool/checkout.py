"""Checkouts that find no idle connection: waiting for one, and pinging it where that is due."""

import asyncio
import math
import weakref
from asyncio import Future
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import Any

from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import await_

from penstock.deadlines import Deadline, current_limits
from penstock.pool.errors import is_transient, name_of, rejection_error
from penstock.pool.events import CheckoutRejected, Listeners, PoolSnapshot
from penstock.pool.leak import NestedCheckoutGuard
from penstock.pool.ledger import Ledger
from penstock.pool.policy import PoolPolicy
from penstock.pool.queue import Rejection, RejectReason, Waiter
from penstock.pool.record import ConnectionRegistry, Record
from penstock.pool.slot import Slot
from penstock.pool.worker import ConnectionWorker


class TaskWaiter(Waiter):
    """A task in the queue.

    Args:
        future: Awaited by the task.
        deadline: When the task gives up.
        retry_for: Seconds for which a failed connect is tried again for it, within the deadline.
    """

    __slots__ = ("future",)

    def __init__(
        self, future: "Future[Slot | Rejection]", deadline: float, retry_for: float
    ) -> None:
        super().__init__(deadline, retry_for)
        self.future = future

    def accept(self, slot: Slot) -> bool:
        """Take the slot; return False where the task was cancelled meanwhile."""
        if self.future.done():
            return False
        self.future.set_result(slot)
        return True

    def reject(self, rejection: Rejection) -> None:
        """End the wait with a rejection."""
        if not self.future.done():
            self.future.set_result(rejection)


EXPIRE_INTERVAL = 0.01
"""Seconds between two searches for waiters whose deadline has passed, at least: a waiter may be
answered late by as much, and a search among thousands of waiters costs time."""


class QueueTimers:
    """The timers of a wait queue; they run in the context of no request.

    Args:
        loop: The event loop of the pool.
        ledger: Has the waiters.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ledger: Ledger) -> None:
        self._loop = loop
        self._ledger = ledger
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._heartbeat_timer: asyncio.TimerHandle | None = None
        self._expires_at = math.inf

    def expire_in_time(self, waiter: Waiter, now: float) -> None:
        """Answer a waiter when its deadline passes.

        One timer serves all waiters: most are answered before, and a timer for each would cost
        more than the queue itself.

        Args:
            waiter: Has queued up.
            now: The time.
        """
        self._beat_later()
        if waiter.deadline < self._expires_at:
            self._expire_at(waiter.deadline, now)

    def _beat_later(self) -> None:
        if self._heartbeat_timer is None:
            self._heartbeat_timer = self._loop.call_later(
                self._ledger.waiters.heartbeat_interval, _beat, weakref.ref(self), context=Context()
            )

    def beat(self) -> None:
        """Tell the queue that the event loop runs, and again later while there are waiters."""
        self._heartbeat_timer = None
        if self._ledger.waiters:
            self._ledger.waiters.heartbeat(monotonic())
            self._beat_later()

    def _expire_at(self, when: float, now: float) -> None:
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
        self._expires_at = when
        self._expiry_timer = self._loop.call_later(
            when - now, _expire, weakref.ref(self), context=Context()
        )

    def expire(self) -> None:
        """Answer every waiter whose deadline has passed, and set the timer for the next."""
        ledger, now = self._ledger, monotonic()
        self._expiry_timer, self._expires_at = None, math.inf
        for waiter in [each for each in ledger.waiters.queue if each.deadline <= now]:
            ledger.expire(waiter)
        following = min((each.deadline for each in ledger.waiters.queue), default=math.inf)
        if following < math.inf:
            self._expire_at(max(following, now + EXPIRE_INTERVAL), now)


# The timers must not keep a pool alive to which nothing else refers.


def _beat(timers: "weakref.ref[QueueTimers]") -> None:
    if (living := timers()) is not None:
        living.beat()


def _expire(timers: "weakref.ref[QueueTimers]") -> None:
    if (living := timers()) is not None:
        living.expire()


class CheckoutLimits:
    """How long one caller waits: by ``pool_timeout``, and by the limits of the running call.

    Args:
        asked_at: When the caller asked for a connection, on ``time.monotonic``.
        timeout: ``pool_timeout`` in seconds; None for no limit.
        retry_for: Seconds for which a failed connect is tried again for the caller.
        is_first: Whether it waits in front of all, because its connection was broken.
    """

    __slots__ = (
        "_call_deadline",
        "_call_ends_at",
        "asked_at",
        "deadline",
        "has_waited",
        "held",
        "is_first",
        "limit",
        "retry_for",
    )

    def __init__(
        self, asked_at: float, timeout: float | None, retry_for: float, is_first: bool
    ) -> None:
        self.asked_at = asked_at
        self.deadline = math.inf if timeout is None else asked_at + timeout
        self.retry_for = retry_for
        self.has_waited = False
        self.is_first = False
        self.held: frozenset[Slot] = frozenset()
        """The slots of the pool that the caller holds."""
        self.limit = ""
        """What ends the wait earlier than ``pool_timeout``, in words; empty for nothing."""
        self._call_ends_at = math.inf
        self._call_deadline: Deadline | None = None
        if limits := current_limits.get():
            self._limit_by_call(*limits.of_wait(asked_at))
        if is_first:
            self.go_first()

    def _limit_by_call(self, until: float, limit: str, deadline: Deadline | None) -> None:
        self._call_ends_at = until
        if until < self.deadline:
            self.deadline, self.limit, self._call_deadline = until, limit, deadline

    def go_first(self) -> None:
        """Wait in front of all from now on, because the connection was broken."""
        self.is_first = True
        if self.is_zero and not self.limit:
            self.wait_for_own_slot()

    @property
    def is_zero(self) -> bool:
        """Whether the caller does not wait for others."""
        return self.deadline <= self.asked_at

    def wait_for_own_slot(self) -> None:
        """Wait without ``pool_timeout`` for a slot that no other caller holds.

        ``pool_timeout=0`` excludes waiting for others; the pool itself is closing or opening this
        slot's connection.
        """
        self.deadline = self._call_ends_at

    def rest_for_ping(self) -> float | None:
        """Return the seconds that are left for a ping; None where they do not end it.

        A deadline that the queue or the call has used up says nothing about the server.
        """
        if self.deadline == math.inf or not (self.has_waited or self.limit):
            return None
        return self.deadline - monotonic()

    def ping_timeout(self, ping_timeout: float) -> float:
        """Return the seconds after which an unanswered ping means a dead connection.

        Args:
            ping_timeout: The pool's.
        """
        if self.has_waited or self.limit or self.is_zero:
            return ping_timeout
        return max(0.0, min(ping_timeout, self.deadline - monotonic()))

    def translate_error(self, error: BaseException) -> BaseException:
        """Return the error of the call's deadline where that is over, else the pool's error.

        Args:
            error: The pool's error.
        """
        if self._call_deadline is None or not self._call_deadline.is_over():
            return error
        exceeded = self._call_deadline.exceeded(str(error))
        exceeded.__cause__ = error
        return exceeded


class Checkouts:
    """The checkouts of one pool that find no idle connection fit for use.

    Args:
        pool: SQLAlchemy's side of the pool: its name, timeout and log.
        loop: The event loop of the connections.
        snapshot: Returns the pool's numbers.
        ledger: Hands out the slots.
        policy: Has the timeouts.
        listeners: Are notified of rejections.
        registry: Says which connections are alive.
        worker: Connects and pings.
        evict: Takes back a checked-out record whose connection is broken.
    """

    def __init__(
        self,
        pool: QueuePool,
        loop: asyncio.AbstractEventLoop,
        *,
        snapshot: Callable[[], PoolSnapshot],
        ledger: Ledger,
        policy: PoolPolicy,
        listeners: Listeners,
        registry: ConnectionRegistry,
        worker: ConnectionWorker,
        evict: Callable[[Record, BaseException], None],
    ) -> None:
        self._pool = pool
        self._snapshot = snapshot
        self._pre_pings: bool = pool._pre_ping  # noqa: SLF001 - the base class's
        self._loop = loop
        self._ledger = ledger
        self._policy = policy
        self._listeners = listeners
        self._registry = registry
        self._worker = worker
        self._timers = QueueTimers(loop, ledger)
        self._evict_record = evict
        self._guard = NestedCheckoutGuard(pool, snapshot, ledger, policy.nested_checkout, listeners)

    def limits(self, now: float, asked_at: float | None = None) -> CheckoutLimits:
        """Return how long a caller waits.

        Args:
            now: The time.
            asked_at: When the caller asked for a connection that was broken; None for now.
        """
        timeout = self._timeout
        return CheckoutLimits(
            now if asked_at is None else asked_at,
            timeout,
            self._retry_for(timeout),
            asked_at is not None,
        )

    @property
    def _timeout(self) -> float | None:
        return self._pool._timeout  # noqa: SLF001 - the base class's

    def _retry_for(self, timeout: float | None) -> float:
        # Without a pool_timeout the caller waits for others without end, but not for a server that
        # may never come back.
        if timeout is None:
            return self._policy.connect_timeout
        retry = self._policy.connect_retry
        return (math.inf if retry is None else retry) if timeout else 0.0

    async def slot(self, slot: Slot | None, limits: CheckoutLimits) -> Slot:
        """Return a checked-out slot whose connection is fit for use.

        Args:
            slot: Checked out, and not known to be fit; None where none was idle.
            limits: How long the caller waits.

        Raises:
            PoolTimeout: No connection came within ``pool_timeout``.
            PoolClosed: The pool is closed.
            Exception: The driver's error, where a connection could not be opened.
        """
        while True:
            slot = slot or self._ledger.acquire(monotonic()) or await self._wait(limits)
            record: Record = slot.content
            if not self._registry.is_alive(record):
                self._evict(record, DisconnectionError("The server has closed the connection"))
            elif not self._needs_ping(slot) or await self._answers_ping(record, limits):
                return slot
            slot = None
            limits.go_first()

    async def _wait(self, limits: CheckoutLimits) -> Slot:
        now = monotonic()
        waiter = TaskWaiter(self._loop.create_future(), limits.deadline, limits.retry_for)
        if limits.is_first:
            waiter.held = limits.held
            self._ledger.wait_again(waiter, limits.asked_at, now)
        else:
            self._queue_up(waiter, limits, now)
        limits.is_first = limits.has_waited = True
        self._worker.dispatch()
        if self._ledger.backoff.until > now:
            self._worker.retry_later(now)
        self._timers.expire_in_time(waiter, now)
        try:
            answer: Slot | Rejection = await waiter.future
        except BaseException:
            self._withdraw(waiter)
            raise
        if isinstance(answer, Rejection):
            raise self._error(answer, limits)
        return answer

    def _queue_up(self, waiter: TaskWaiter, limits: CheckoutLimits, now: float) -> None:
        ledger = self._ledger
        is_full = ledger.open >= ledger.limit
        if is_full:
            limits.held = waiter.held = self._guard.check()
        if limits.deadline <= limits.asked_at:
            if limits.limit or not ledger.has_room():
                raise self._error(ledger.rejection_for(waiter), limits)
            limits.wait_for_own_slot()
            waiter.deadline = limits.deadline
        rejection = ledger.wait(waiter, now)
        if rejection is not None:
            raise self._error(rejection, limits)
        if is_full:  # a caller that is rejected at once does not wait
            self._guard.warn(limits.held)

    def _withdraw(self, waiter: TaskWaiter) -> None:
        future = waiter.future
        if not self._ledger.waiters.withdraw(waiter) and future.done() and not future.cancelled():
            answer = future.result()
            if isinstance(answer, Slot):
                self._ledger.release(answer, monotonic())
                self._worker.dispatch()

    def _error(self, rejection: Rejection, limits: CheckoutLimits) -> BaseException:
        waited = monotonic() - limits.asked_at
        if self._listeners.active:
            self._listeners.notify(CheckoutRejected(rejection.why, waited))
        if rejection.error is not None:
            return rejection.error.with_traceback(None)  # it would grow with every caller
        return limits.translate_error(self._rejection_error(rejection.why, waited, limits.limit))

    def _needs_ping(self, slot: Slot) -> bool:
        if self._pre_pings and not slot.content.fresh:
            return True
        return monotonic() - slot.since >= self._policy.idle_before_ping

    async def _answers_ping(self, record: Record, limits: CheckoutLimits) -> bool:
        is_alive = await self._pinged(record, limits)
        # SQLAlchemy pings by itself, but not what is fresh.
        record.fresh = is_alive and self._pre_pings
        if not is_alive:
            self._pool.logger.info("Connection %r did not answer a ping", record.dbapi_connection)
            self._evict(record, InvalidatePoolError("A ping was not answered"))
            self._evict_stale_idle()
        return is_alive

    async def _pinged(self, record: Record, limits: CheckoutLimits) -> bool:
        limit = asyncio.timeout(limits.rest_for_ping())
        try:
            async with limit:
                return await self._ping(record, limits)
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._error(Rejection(RejectReason.WAITING), limits) from None

    async def _ping(self, record: Record, limits: CheckoutLimits) -> bool:
        timeout = limits.ping_timeout(self._policy.ping_timeout)
        try:
            return await self._worker.ping(record, timeout)
        except BaseException as error:
            self._evict_record(record, error)
            raise

    def _evict(self, record: Record, error: DisconnectionError) -> None:
        self._evict_record(record, error)
        if self._pre_pings:
            # As pool_pre_ping is documented: it invalidates every connection that is open now.
            self._pool._invalidate(record, error, _checkin=False)  # type: ignore[arg-type]  # noqa: SLF001 - the base class's

    def _evict_stale_idle(self) -> None:
        # One was found silent: each of the others could cost the caller another ping_timeout.
        long_ago = monotonic() - self._policy.idle_before_ping
        self._ledger.evict_idle(lambda slot: slot.since <= long_ago)
        self._worker.dispatch()

    def reconnect(self, record: Record, asked_at: float) -> Any:
        """Return a connection for a checked-out record that has lost its own. Runs in a greenlet.

        Args:
            record: Its connection is gone or being closed.
            asked_at: When ``pool_timeout`` began, on ``time.monotonic``.

        Raises:
            PoolTimeout: No connection was opened within ``pool_timeout``.
            Exception: The driver's error of the last attempt.
        """
        return await_(self._reconnect(record, asked_at))

    async def _reconnect(self, record: Record, asked_at: float) -> Any:
        timeout = self._timeout
        limit = asyncio.timeout(asked_at + timeout - monotonic() if timeout else None)
        try:
            async with limit:
                return await self._connection_for(record, asked_at + self._retry_for(timeout))
        except TimeoutError as error:
            if not limit.expired():
                raise
            backoff, waited = self._ledger.backoff, monotonic() - asked_at
            why = RejectReason.FAILED if asked_at < backoff.until else RejectReason.CONNECTING
            self._listeners.notify(CheckoutRejected(why, waited))
            if why is RejectReason.FAILED and backoff.last_error is not None:
                raise backoff.last_error.with_traceback(None) from None
            raise self._rejection_error(why, waited) from error

    async def _connection_for(self, record: Record, retry_until: float) -> Any:
        # The old connection is closed first: a slot never has two.
        while record.repair:
            await asyncio.sleep(0)
            if isinstance(record.repair, asyncio.Task):
                await asyncio.wait({record.repair})
        if record.recovered is not None:
            record.dbapi_connection, record.recovered = record.recovered, None
        else:
            await self._connect_until(record, retry_until)
            self._ledger.renew(record.slot, monotonic())
        return record.dbapi_connection

    async def _connect_until(self, record: Record, retry_until: float) -> None:
        backoff = self._ledger.backoff
        while True:
            try:
                return await self._worker.connect(record)
            except Exception as error:
                now = monotonic()
                if not is_transient(error) or self._ledger.closed or now >= retry_until:
                    raise
                backoff.failed(now, error, refused=False)
            await asyncio.sleep(max(0.0, backoff.until - monotonic()))

    def _rejection_error(self, why: RejectReason, waited: float, limit: str = "") -> Exception:
        return rejection_error(
            why,
            pool=name_of(self._pool),
            timeout=self._timeout,
            waited=waited,
            snapshot=self._snapshot(),
            limit=limit,
        )
