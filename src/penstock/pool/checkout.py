"""Getting a connection that was not simply there: waiting for one, and trying whether it lives."""

import asyncio
import math
from asyncio import Future
from time import monotonic
from typing import TYPE_CHECKING

from sqlalchemy.exc import DisconnectionError, InvalidatePoolError

from penstock.deadlines import Deadline, limits_in_force
from penstock.pool.events import CheckoutRejected
from penstock.pool.leaks import refuse_nested_checkout, report_nested_checkout
from penstock.pool.queue import Rejection, RejectReason, Waiter
from penstock.pool.record import Record
from penstock.pool.slot import Slot

if TYPE_CHECKING:
    from penstock.pool.runtime import PoolRuntime

__all__ = ["Checkout"]


class AsyncWaiter(Waiter):
    """A task in the queue.

    Args:
        future: What the task awaits.
        deadline: When it gives up.
        retry_for: As the base class has it.
    """

    __slots__ = ("future",)

    def __init__(
        self, future: "Future[Slot | Rejection]", deadline: float, retry_for: float
    ) -> None:
        super().__init__(deadline, retry_for)
        self.future = future

    def accept(self, slot: Slot) -> bool:
        """As the base class says: a task that was cancelled meanwhile does not want it."""
        if self.future.done():
            return False
        self.future.set_result(slot)
        return True

    def refuse(self, refusal: Rejection) -> None:
        """As the base class says."""
        if not self.future.done():
            self.future.set_result(refusal)


class Checkout:
    """One task's way to a connection.

    Args:
        runtime: Who looks after the pool.
        now: The time.
        asked_at: When the task asked, where it was given something broken; None for now.

    Attributes:
        asked_at: As above.
    """

    __slots__ = (
        "_again",
        "_call_ends_at",
        "_deadline",
        "_held",
        "_limit",
        "_of_call",
        "_retry_for",
        "_runtime",
        "_waited",
        "asked_at",
    )

    def __init__(self, runtime: "PoolRuntime", now: float, asked_at: float | None = None) -> None:
        self._runtime = runtime
        timeout = runtime.pool.timeout()
        self.asked_at = now if asked_at is None else asked_at
        self._deadline = math.inf if timeout is None else self.asked_at + timeout
        self._retry_for = runtime.retry_for(timeout)
        self._waited = self._again = False
        self._held: frozenset[Slot] = frozenset()
        self._call_ends_at, self._limit = math.inf, ""
        self._of_call: Deadline | None = None
        if (limits := limits_in_force()) is not None:
            self._bound_by_call(*limits.of_wait(self.asked_at))
        if asked_at is not None:
            self._begin_again()

    def _begin_again(self) -> None:
        """Wait in front of all from now on, for what was given turned out to be broken."""
        self._again = True
        if self._deadline <= self.asked_at and not self._limit:
            self._deadline = self._call_ends_at  # pool_timeout=0: it waits for nobody's return

    def _bound_by_call(self, until: float, limit: str, deadline: Deadline | None) -> None:
        self._call_ends_at = until
        if until < self._deadline:
            self._deadline, self._limit, self._of_call = until, limit, deadline

    async def slot(self, slot: Slot | None) -> Slot:
        """Return a checked out slot whose connection is fit for use.

        Args:
            slot: Checked out already but not proven fit; None where none was idle.

        Raises:
            PoolTimeout: None was to be had within ``pool_timeout``.
            PoolClosed: The pool hands out nothing any more.
            Exception: What the driver raised when a connection was opened.
        """
        runtime = self._runtime
        while True:
            slot = slot or runtime.ledger.acquire(monotonic()) or await self._wait()
            record: Record = slot.content
            if not runtime.lives(record):
                self._evict(record, DisconnectionError("The server has closed the connection"))
            elif not self._needs_ping(slot) or await self._answers_ping(record):
                return slot
            slot = None
            self._begin_again()

    async def _wait(self) -> Slot:
        runtime, now = self._runtime, monotonic()
        waiter = AsyncWaiter(runtime.loop.create_future(), self._deadline, self._retry_for)
        if self._again:
            waiter.held = self._held
            runtime.ledger.wait_again(waiter, self.asked_at, now)
        else:
            self._queue_up(waiter, now)
        self._again = self._waited = True
        runtime.dispatch()
        runtime.timers.answer_in_time(waiter, now)
        try:
            answer: Slot | Rejection = await waiter.future
        except BaseException:
            self._withdraw(waiter)
            raise
        if isinstance(answer, Rejection):
            raise self._error(answer)
        return answer

    def _queue_up(self, waiter: AsyncWaiter, now: float) -> None:
        ledger = self._runtime.ledger
        is_full = ledger.open >= ledger.limit
        if is_full:
            self._held = waiter.held = refuse_nested_checkout(self._runtime)
        if self._deadline <= self.asked_at:
            if self._limit or not ledger.has_place():
                raise self._error(ledger.why_it_waits(waiter))
            # Not waiting for others is what was asked for; the pool's own work takes what it takes.
            self._deadline = waiter.deadline = self._call_ends_at
        refusal = ledger.wait(waiter, now)
        if refusal is not None:
            raise self._error(refusal)
        if is_full:  # what is told at once that there is none waits for nobody
            report_nested_checkout(self._runtime, self._held)

    def _withdraw(self, waiter: AsyncWaiter) -> None:
        ledger, future = self._runtime.ledger, waiter.future
        if not ledger.waiters.withdraw(waiter) and future.done() and not future.cancelled():
            answer = future.result()
            if isinstance(answer, Slot):
                ledger.release(answer, monotonic())
                self._runtime.dispatch()

    def _error(self, refusal: Rejection) -> BaseException:
        runtime, waited = self._runtime, monotonic() - self.asked_at
        if runtime.listeners.are_there:
            runtime.listeners.tell(CheckoutRejected(refusal.why, waited))
        if refusal.error is not None:
            return refusal.error.with_traceback(None)  # it would grow with every caller
        error = runtime.refusal(refusal.why, waited, self._limit)
        if self._of_call is None or not self._of_call.is_over():
            return error
        exceeded = self._of_call.exceeded(str(error))
        exceeded.__cause__ = error
        return exceeded

    def _needs_ping(self, slot: Slot) -> bool:
        runtime = self._runtime
        if runtime.pre_pings and not slot.content.fresh:
            return True
        return monotonic() - slot.since >= runtime.policy.idle_before_ping

    async def _answers_ping(self, record: Record) -> bool:
        runtime = self._runtime
        is_alive = await self._pinged(record)
        # SQLAlchemy, which would ping by itself, does not ping what is fresh.
        record.fresh = is_alive and runtime.pre_pings
        if not is_alive:
            runtime.pool.logger.info("Connection %r answered no ping", record.dbapi_connection)
            self._evict(record, InvalidatePoolError("A ping was not answered"))
            runtime.evict_stale_idle()
        return is_alive

    async def _pinged(self, record: Record) -> bool:
        limit = asyncio.timeout(self._rest_after_waiting())
        try:
            async with limit:
                return await self._pinged_within_bounds(record)
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._error(Rejection(RejectReason.WAITING)) from None

    async def _pinged_within_bounds(self, record: Record) -> bool:
        try:
            return await self._runtime.pinger.ping(record, self._patience_for_ping())
        except BaseException as error:
            self._runtime.evict(record, error)
            raise

    def _rest_after_waiting(self) -> float | None:
        """What is left of a patience that the queue has used up says nothing of the server.

        Nor does what a call allows, which may be as little as its caller likes.
        """
        if self._deadline == math.inf or not (self._waited or self._limit):
            return None
        return self._deadline - monotonic()

    def _patience_for_ping(self) -> float:
        bound = self._runtime.policy.ping_timeout
        if self._waited or self._limit or self._deadline <= self.asked_at:
            return bound  # pool_timeout=0 is about waiting for others
        return max(0.0, min(bound, self._deadline - monotonic()))

    def _evict(self, record: Record, error: DisconnectionError) -> None:
        runtime = self._runtime
        runtime.evict(record, error)
        if runtime.pre_pings:
            # As pool_pre_ping is documented: nothing that is open now is trusted any more.
            runtime.pool._invalidate(record, error, _checkin=False)  # type: ignore[arg-type]  # noqa: SLF001 - the base class's
