"""Checkouts that find no idle connection: waiting for one, and pinging it where that is due."""

import asyncio
import logging
import math
from asyncio import Future
from collections.abc import Callable
from time import monotonic
from typing import Any

from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.util import await_

from penstock.deadlines import Deadline, current_limits
from penstock.log_limit import LogLimit
from penstock.pool.errors import NestedCheckout, rejection_error
from penstock.pool.events import CheckoutRejected, Listeners, NestedCheckoutSeen
from penstock.pool.housekeeper import Timers
from penstock.pool.lease import Lease, enclosing_tasks, here, holding_tasks, task_of
from penstock.pool.ledger import Ledger
from penstock.pool.liveness import ConnectionRegistry
from penstock.pool.policy import PoolPolicy
from penstock.pool.queue import Rejection, RejectReason, Waiter
from penstock.pool.record import Record
from penstock.pool.slot import CHECKED_OUT, Slot
from penstock.pool.snapshot import PoolNumbers
from penstock.pool.worker import ConnectionWorker
from penstock.settings import NestedCheckoutPolicy

_logger = logging.getLogger("penstock.pool")


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
        pool: SQLAlchemy's side of the pool: its name, numbers, timeout and log.
        loop: The event loop of the connections.
        ledger: Hands out the slots.
        policy: Has the timeouts.
        listeners: Are notified of rejections.
        registry: Says which connections are alive.
        worker: Connects and pings.
        timers: End the wait at the deadline.
        evict: Takes back a checked-out record whose connection is broken.
    """

    def __init__(
        self,
        pool: PoolNumbers,
        loop: asyncio.AbstractEventLoop,
        *,
        ledger: Ledger,
        policy: PoolPolicy,
        listeners: Listeners,
        registry: ConnectionRegistry,
        worker: ConnectionWorker,
        timers: Timers,
        evict: Callable[[Record, BaseException], None],
    ) -> None:
        self._pool = pool
        self._pre_pings: bool = pool._pre_ping  # noqa: SLF001 - the base class's
        self._loop = loop
        self._ledger = ledger
        self._policy = policy
        self._listeners = listeners
        self._registry = registry
        self._worker = worker
        self._timers = timers
        self._evict_record = evict
        self._guard = NestedCheckoutGuard(pool, ledger, policy, listeners)

    def limits(self, now: float, asked_at: float | None = None) -> CheckoutLimits:
        """Return how long a caller waits.

        Args:
            now: The time.
            asked_at: When the caller asked for a connection that was broken; None for now.
        """
        timeout = self._pool.timeout()
        return CheckoutLimits(
            now if asked_at is None else asked_at,
            timeout,
            self._retry_for(timeout),
            asked_at is not None,
        )

    def _retry_for(self, timeout: float | None) -> float:
        # Without a pool_timeout the caller waits for others without end, but not for a server that
        # may never come back.
        if timeout is None:
            return self._policy.connect_timeout
        return math.inf if timeout else 0.0

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
            return await self._worker.pinger.ping(record, timeout)
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
        timeout = self._pool.timeout()
        limit = asyncio.timeout(asked_at + timeout - monotonic() if timeout else None)
        try:
            async with limit:
                return await self._worker.reconnect(record, asked_at + self._retry_for(timeout))
        except TimeoutError as error:
            if not limit.expired():
                raise
            backoff, waited = self._ledger.backoff, monotonic() - asked_at
            why = RejectReason.FAILED if asked_at < backoff.until else RejectReason.CONNECTING
            self._listeners.notify(CheckoutRejected(why, waited))
            if why is RejectReason.FAILED and backoff.last_error is not None:
                raise backoff.last_error.with_traceback(None) from None
            raise self._rejection_error(why, waited) from error

    def _rejection_error(self, why: RejectReason, waited: float, limit: str = "") -> Exception:
        pool = self._pool
        return rejection_error(
            why,
            pool=pool.name,
            timeout=pool.timeout(),
            waited=waited,
            snapshot=pool.snapshot(),
            limit=limit,
        )


class NestedCheckoutGuard:
    """Detects callers that hold a connection of the pool and wait for another.

    Args:
        pool: The pool's name and numbers.
        ledger: Has the slots and the waiters.
        policy: Says whether such a caller is rejected, or a warning logged.
        listeners: Are notified of each nested checkout.
    """

    def __init__(
        self, pool: PoolNumbers, ledger: Ledger, policy: PoolPolicy, listeners: Listeners
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._policy = policy.nested_checkout
        self._listeners = listeners
        self._log_limit = LogLimit()

    def check(self) -> frozenset[Slot]:
        """Check the caller before it waits.

        Returns:
            The slots of the pool that the caller holds.

        Raises:
            NestedCheckout: It holds a connection of a pool that has no other, and the policy is to
                refuse; or it is a request, and every connection is held by a waiter.
        """
        held = self._held_by_caller()
        if not held or self._ledger.open < self._ledger.limit:
            return held
        is_deadlock = holding_tasks.get() is not None and self._all_wait(held)
        if is_deadlock or self._policy == NestedCheckoutPolicy.REFUSE:
            message = self._report(held, is_deadlock=is_deadlock)
            raise NestedCheckout(message, RejectReason.NESTED, self._pool.snapshot())
        return held

    def warn(self, held: frozenset[Slot]) -> None:
        """Log a warning about a caller that waits, if it holds a connection and the policy says so.

        Args:
            held: The slots of the pool that the caller holds.
        """
        if not held or self._policy != NestedCheckoutPolicy.WARN:
            return
        message = self._report(held, is_deadlock=False)
        left_out = self._log_limit.passes()
        if left_out is None:
            return
        if left_out:
            _logger.warning("%d more nested checkouts were not logged", left_out)
        _logger.warning("%s", message)

    def _report(self, held: frozenset[Slot], *, is_deadlock: bool) -> str:
        lease = next(iter(held)).lease
        first = (
            lease.stack()
            if isinstance(lease, Lease)
            else "  (not recorded: leak_after is not set)\n"
        )
        second = here()
        self._listeners.notify(NestedCheckoutSeen(first, second))
        why = (
            "every connection is held by a task or request that waits for another, so that none "
            "is ever released"
            if is_deadlock
            else "all are checked out: if enough tasks do so, all wait for each other"
        )
        return (
            f"A task or request that holds a connection of {self._pool.name} asks for another, and "
            f"{why}. Use the session or connection that it has, or end its transaction before "
            f"opening a second one.\nThe first was checked out at:\n{first}"
            f"The second is requested at:\n{second}"
            f"({self._pool.snapshot()}; nested_checkout={self._policy})"
        )

    def _held_by_caller(self) -> frozenset[Slot]:
        holding = holding_tasks.get()
        tasks = {asyncio.current_task(), *enclosing_tasks.get(), *(holding() if holding else ())}
        tasks.discard(None)
        return frozenset(
            slot
            for slot in self._ledger
            if slot.state is CHECKED_OUT and task_of(slot.lease) in tasks
        )

    def _all_wait(self, held: frozenset[Slot]) -> bool:
        """Return whether the holder of every connection waits for another."""
        waiting = held.union(*(waiter.held for waiter in self._ledger.waiters.queue))
        return all(slot.state is CHECKED_OUT and slot in waiting for slot in self._ledger)
