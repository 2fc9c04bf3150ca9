"""Leases that last too long, and tasks that wait for themselves."""

import asyncio
import logging
from typing import TYPE_CHECKING

from penstock.drivers.sql_text import shape
from penstock.pool.errors import NestedCheckout
from penstock.pool.events import LeakReport, LeaseLeaked, NestedCheckoutSeen
from penstock.pool.lease import (
    STATEMENT_KEY,
    Lease,
    enclosing_tasks,
    here,
    holding_tasks,
    task_of,
    where,
)
from penstock.pool.policy import NestedCheckoutPolicy
from penstock.pool.queue import RejectReason
from penstock.pool.slot import CHECKED_OUT, Slot

if TYPE_CHECKING:
    from penstock.pool.runtime import PoolRuntime

__all__ = ["refuse_nested_checkout", "report_leaks", "report_nested_checkout"]

_logger = logging.getLogger("penstock.pool")


def report_leaks(runtime: "PoolRuntime", now: float) -> None:
    """Report each lease once that has lasted for longer than ``leak_after``."""
    leak_after = runtime.policy.leak_after
    if leak_after is None:
        return
    for slot in list(runtime.ledger):  # a listener may change it
        lease = slot.lease
        if not isinstance(lease, Lease) or lease.reported or slot.state is not CHECKED_OUT:
            continue
        if now - slot.checked_out_at >= leak_after:
            lease.reported = True
            _report(runtime, slot, lease, now)


def _report(runtime: "PoolRuntime", slot: Slot, lease: Lease, now: float) -> None:
    statement = slot.content.info.get(STATEMENT_KEY)
    is_mysql = getattr(runtime.dialect, "name", "") in ("mysql", "mariadb")
    report = LeakReport(
        seconds=now - slot.checked_out_at,
        route=lease.route() if lease.route else None,
        acquired_at=lease.stack(),
        holder_at=where(lease.task),
        statement=shape(statement, is_mysql=is_mysql) if statement else None,
        reclaimed=runtime.policy.reclaim_leaks,
    )
    _logger.warning("%s", report)
    runtime.listeners.tell(LeaseLeaked(report))
    if runtime.policy.reclaim_leaks:
        why = (
            f"Its connection was checked out for {report.seconds:.1f} s (leak_after, reclaim_leaks)"
        )
        runtime.in_background(_reclaim(runtime, slot, lease, why))


async def _reclaim(runtime: "PoolRuntime", slot: Slot, lease: Lease, why: str) -> None:
    if slot.lease is lease:  # and not another holder's by now
        await runtime.reclaim(slot, why)


def refuse_nested_checkout(runtime: "PoolRuntime") -> frozenset[Slot]:
    """Look whether who is about to wait holds what it waits for.

    Returns:
        What it holds of the pool.

    Raises:
        NestedCheckout: It holds a connection of a pool that has no other, and the policy is to
            refuse; or it is a request, and everything is held by callers that wait as well.
    """
    held = _held_by_caller(runtime)
    if not held or runtime.ledger.open < runtime.ledger.limit:
        return held
    is_deadlock = holding_tasks.get() is not None and _all_wait(runtime, held)
    if is_deadlock or runtime.policy.nested_checkout == NestedCheckoutPolicy.REFUSE:
        message = _nested_checkout(runtime, held, is_deadlock=is_deadlock)
        raise NestedCheckout(message, RejectReason.NESTED, runtime.pool.snapshot())
    return held


def report_nested_checkout(runtime: "PoolRuntime", held: frozenset[Slot]) -> None:
    """Log that who waits now holds what it waits for, if it does and the policy is to warn of it.

    Args:
        runtime: Who looks after the pool.
        held: What it holds of the pool.
    """
    if not held or runtime.policy.nested_checkout != NestedCheckoutPolicy.WARN:
        return
    message = _nested_checkout(runtime, held, is_deadlock=False)
    left_out = runtime.nested_log_limit.passes()
    if left_out is None:
        return
    if left_out:
        _logger.warning("%d more nested checkouts were left out of this log", left_out)
    _logger.warning("%s", message)


def _nested_checkout(runtime: "PoolRuntime", held: frozenset[Slot], *, is_deadlock: bool) -> str:
    lease = next(iter(held)).lease
    first = lease.stack() if isinstance(lease, Lease) else "  (not noted: leak_after is not set)\n"
    second = here()
    runtime.listeners.tell(NestedCheckoutSeen(first, second))
    why = (
        "every connection is held by a task or a request that waits for another one, so that none "
        "would ever come back"
        if is_deadlock
        else "all are checked out: if enough tasks do so, all wait for each other"
    )
    return (
        f"A task or request that holds a connection of {runtime.pool.name} asks for another, and "
        f"{why}. Use the session or connection that it has, or end its transaction first, instead "
        f"of opening a second one.\nThe first was checked out at:\n{first}"
        f"The second is asked for at:\n{second}"
        f"({runtime.pool.snapshot()}; nested_checkout={runtime.policy.nested_checkout})"
    )


def _held_by_caller(runtime: "PoolRuntime") -> frozenset[Slot]:
    holding = holding_tasks.get()
    tasks = {asyncio.current_task(), *enclosing_tasks.get(), *(holding() if holding else ())}
    tasks.discard(None)
    return frozenset(
        slot
        for slot in runtime.ledger
        if slot.state is CHECKED_OUT and task_of(slot.lease) in tasks
    )


def _all_wait(runtime: "PoolRuntime", held: frozenset[Slot]) -> bool:
    """Return whether every connection is held by somebody who waits for another."""
    waiting = held.union(*(waiter.held for waiter in runtime.ledger.waiters.queue))
    return all(slot.state is CHECKED_OUT and slot in waiting for slot in runtime.ledger)
