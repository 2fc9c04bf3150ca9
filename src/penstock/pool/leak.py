"""Leaks: connections that are held for too long, twice, or by a block that nothing leaves."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.pool import Pool

from penstock.drivers.sql_text import shape
from penstock.log_limit import LogLimit
from penstock.pool.errors import NestedCheckout, name_of
from penstock.pool.events import (
    LeakReport,
    LeaseLeaked,
    Listeners,
    NestedCheckoutSeen,
    PoolSnapshot,
)
from penstock.pool.ledger import Ledger
from penstock.pool.policy import PoolPolicy
from penstock.pool.queue import RejectReason
from penstock.pool.record import STATEMENT_KEY, Lease, current_holder, here, task_of, where
from penstock.pool.slot import CHECKED_OUT, Slot
from penstock.settings import NestedCheckoutPolicy

_logger = logging.getLogger("penstock.pool")


@dataclass(frozen=True, eq=False)
class LeakDetector:
    """Reports leases that last for longer than ``leak_after``.

    Args:
        ledger: Has the slots.
        policy: Says after how long, and whether the connection is reclaimed.
        listeners: Are notified of each leak.
        is_mysql: Whether statements are written for MySQL or MariaDB.
        reclaim: Closes the connection under the holder; given the slot, its lease and the reason.
    """

    ledger: Ledger
    policy: PoolPolicy
    listeners: Listeners
    is_mysql: bool = field(kw_only=True)
    reclaim: Callable[[Slot, Lease, str], None] = field(kw_only=True)

    def report(self, now: float) -> None:
        """Report each leaked lease, once.

        Args:
            now: The time.
        """
        leak_after = self.policy.leak_after
        if leak_after is None:
            return
        for slot in list(self.ledger):  # a listener may change it
            lease = slot.lease
            if not isinstance(lease, Lease) or lease.reported or slot.state is not CHECKED_OUT:
                continue
            if now - slot.checked_out_at >= leak_after:
                lease.reported = True
                self._report(slot, lease, now - slot.checked_out_at)

    def _report(self, slot: Slot, lease: Lease, seconds: float) -> None:
        statement = slot.content.info.get(STATEMENT_KEY)
        report = LeakReport(
            seconds=seconds,
            route=slot.route() if slot.route else None,
            acquired_at=lease.stack(),
            holder_at=where(lease.task),
            statement=shape(statement, is_mysql=self.is_mysql) if statement else None,
            reclaimed=self.policy.reclaim_leaks,
        )
        _logger.warning("%s", report)
        self.listeners.notify(LeaseLeaked(report))
        if self.policy.reclaim_leaks:
            why = f"Its connection was checked out for {seconds:.1f} s (leak_after, reclaim_leaks)"
            self.reclaim(slot, lease, why)


enclosing_tasks: ContextVar[tuple[Any, ...]] = ContextVar("enclosing_tasks", default=())
"""The tasks that have acquired what the enclosing blocks keep until they are left."""


def holds_connection() -> bool:
    """Return whether the running request or block may hold a connection."""
    if enclosing_tasks.get():
        return True
    holder = current_holder.get()
    return holder is not None and holder.tasks is not None and any(True for _ in holder.tasks())


@dataclass(frozen=True, eq=False)
class NestedCheckoutGuard:
    """Detects callers that hold a connection of the pool and wait for another.

    Args:
        pool: SQLAlchemy's side of the pool, which has its name.
        snapshot: Returns its numbers.
        ledger: Has the slots and the waiters.
        policy: Says whether such a caller is rejected, or a warning logged.
        listeners: Are notified of each nested checkout.
    """

    pool: Pool
    snapshot: Callable[[], PoolSnapshot]
    ledger: Ledger
    policy: NestedCheckoutPolicy
    listeners: Listeners
    log_limit: LogLimit = field(default_factory=LogLimit, init=False)

    def check(self) -> frozenset[Slot]:
        """Check the caller before it waits.

        Returns:
            The slots of the pool that the caller holds.

        Raises:
            NestedCheckout: It holds a connection of a pool that has no other, and the policy is to
                refuse; or it is a request, and every connection is held by a waiter.
        """
        held = self._held_by_caller()
        if not held or self.ledger.open < self.ledger.limit:
            return held
        holder = current_holder.get()
        keeps = holder is not None and holder.tasks is not None
        is_deadlock = keeps and self._all_wait(held)
        if is_deadlock or self.policy == NestedCheckoutPolicy.REFUSE:
            message = self._report(held, is_deadlock=is_deadlock)
            raise NestedCheckout(message, RejectReason.NESTED, self.snapshot())
        return held

    def warn(self, held: frozenset[Slot]) -> None:
        """Log a warning about a caller that waits, if it holds a connection and the policy says so.

        Args:
            held: The slots of the pool that the caller holds.
        """
        if not held or self.policy != NestedCheckoutPolicy.WARN:
            return
        message = self._report(held, is_deadlock=False)
        left_out = self.log_limit.passes()
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
        self.listeners.notify(NestedCheckoutSeen(first, second))
        why = (
            "every connection is held by a task or request that waits for another, so that none "
            "is ever released"
            if is_deadlock
            else "all are checked out: if enough tasks do so, all wait for each other"
        )
        return (
            f"A task or request that holds a connection of {name_of(self.pool)} asks for another, "
            f"and {why}. Use the session or connection that it has, or end its transaction before "
            f"opening a second one.\nThe first was checked out at:\n{first}"
            f"The second is requested at:\n{second}"
            f"({self.snapshot()}; nested_checkout={self.policy})"
        )

    def _held_by_caller(self) -> frozenset[Slot]:
        holder = current_holder.get()
        kept = holder.tasks() if holder is not None and holder.tasks is not None else ()
        tasks = {asyncio.current_task(), *enclosing_tasks.get(), *kept}
        tasks.discard(None)
        return frozenset(
            slot
            for slot in self.ledger
            if slot.state is CHECKED_OUT and task_of(slot.lease) in tasks
        )

    def _all_wait(self, held: frozenset[Slot]) -> bool:
        """Return whether the holder of every connection waits for another."""
        waiting = held.union(*(waiter.held for waiter in self.ledger.waiters.queue))
        return all(slot.state is CHECKED_OUT and slot in waiting for slot in self.ledger)


class OpenLease:
    """A block that holds a connection: a session, a stream, a snapshot.

    Args:
        end: Rolls back and releases the connection where the block cannot be left any more. It
            must not refer to the code inside the block.

    Attributes:
        is_over: Whether the block was left or ended.
    """

    __slots__ = ("_end", "_leases", "_task", "is_over")

    def __init__(self, end: Callable[[], Awaitable[None]]) -> None:
        self.is_over = False
        self._end = end
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        """The task that used it last."""
        holder = current_holder.get()
        self._leases: set[OpenLease] | None = None if holder is None else holder.leases
        if self._leases is not None:
            self._leases.add(self)

    def use(self) -> None:
        """Record that the current task uses the block."""
        self._task = asyncio.current_task()

    def leave(self) -> bool:
        """Mark the block as over; return whether it was not before."""
        if self.is_over:
            return False
        self.is_over = True
        if self._leases is not None:
            self._leases.discard(self)
        return True

    def is_abandoned(self, request: asyncio.Task[Any] | None) -> bool:
        """Return whether no running task can leave the block.

        Args:
            request: The task of the request, which has ended.
        """
        task = self._task
        return task is None or task is request or task.done()

    async def end(self) -> None:
        """Release the connection, unless the block was left meanwhile; errors are logged."""
        if self.leave():
            try:
                await self._end()
            except Exception:
                _logger.exception(
                    "A connection that a request had left open was not released without an error"
                )


async def end_abandoned(leases: set[OpenLease]) -> None:
    """End the blocks that a request has left open, even if the caller is cancelled.

    An asynchronous generator that is not iterated any more is suspended inside its blocks until the
    garbage collector finds it, which may take minutes. A block that a running task has opened or
    used stays open.

    Args:
        leases: The open blocks of the request.
    """
    request = asyncio.current_task()
    await asyncio.shield(asyncio.create_task(_end_abandoned(leases, request)))


async def _end_abandoned(leases: set[OpenLease], request: asyncio.Task[Any] | None) -> None:
    await asyncio.sleep(0)  # a task that was given a block may not have begun yet
    abandoned = [lease for lease in leases if lease.is_abandoned(request)]
    await asyncio.gather(*(lease.end() for lease in abandoned))
