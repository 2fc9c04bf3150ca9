"""Loans that last too long, and tasks that wait for themselves."""

import asyncio
import logging
from typing import TYPE_CHECKING

from penstock.drivers.sql_text import shape
from penstock.pool.errors import NestedCheckout
from penstock.pool.events import LeakReport, LoanLeaked, NestedCheckoutSeen
from penstock.pool.lease import (
    STATEMENT_KEY,
    Loan,
    enclosing_tasks,
    here,
    holding_tasks,
    task_of,
    where,
)
from penstock.pool.policy import NestedCheckoutPolicy
from penstock.pool.queue import Refused
from penstock.pool.slot import LENT, Slot

if TYPE_CHECKING:
    from penstock.pool.runtime import Keeper

__all__ = ["refuse_nested_checkout", "report_leaks", "report_nested_checkout"]

_logger = logging.getLogger("penstock.pool")


def report_leaks(keeper: "Keeper", now: float) -> None:
    """Report each loan once that has lasted for longer than ``leak_after``."""
    leak_after = keeper.policy.leak_after
    if leak_after is None:
        return
    for slot in list(keeper.ledger):  # a listener may change it
        loan = slot.loan
        if not isinstance(loan, Loan) or loan.reported or slot.state is not LENT:
            continue
        if now - slot.lent_at >= leak_after:
            loan.reported = True
            _report(keeper, slot, loan, now)


def _report(keeper: "Keeper", slot: Slot, loan: Loan, now: float) -> None:
    statement = slot.content.info.get(STATEMENT_KEY)
    is_mysql = getattr(keeper.dialect, "name", "") in ("mysql", "mariadb")
    report = LeakReport(
        seconds=now - slot.lent_at,
        route=loan.route() if loan.route else None,
        borrowed_at=loan.stack(),
        holder_at=where(loan.task),
        statement=shape(statement, is_mysql=is_mysql) if statement else None,
        reclaimed=keeper.policy.reclaim_leaks,
    )
    _logger.warning("%s", report)
    keeper.listeners.tell(LoanLeaked(report))
    if keeper.policy.reclaim_leaks:
        why = f"Its connection was lent for {report.seconds:.1f} s (leak_after, reclaim_leaks)"
        keeper.in_background(_reclaim(keeper, slot, loan, why))


async def _reclaim(keeper: "Keeper", slot: Slot, loan: Loan, why: str) -> None:
    if slot.loan is loan:  # and not another borrower's by now
        await keeper.reclaim(slot, why)


def refuse_nested_checkout(keeper: "Keeper") -> frozenset[Slot]:
    """Look whether who is about to wait holds what it waits for.

    Returns:
        What it holds of the pool.

    Raises:
        NestedCheckout: It holds a connection of a pool that has no other, and the policy is to
            refuse; or it is a request, and everything is held by callers that wait as well.
    """
    held = _held_by_caller(keeper)
    if not held or keeper.ledger.open < keeper.ledger.limit:
        return held
    is_deadlock = holding_tasks.get() is not None and _all_wait(keeper, held)
    if is_deadlock or keeper.policy.nested_checkout == NestedCheckoutPolicy.REFUSE:
        message = _nested_checkout(keeper, held, is_deadlock=is_deadlock)
        raise NestedCheckout(message, Refused.NESTED, keeper.pool.snapshot())
    return held


def report_nested_checkout(keeper: "Keeper", held: frozenset[Slot]) -> None:
    """Log that who waits now holds what it waits for, if it does and the policy is to warn of it.

    Args:
        keeper: Who looks after the pool.
        held: What it holds of the pool.
    """
    if not held or keeper.policy.nested_checkout != NestedCheckoutPolicy.WARN:
        return
    message = _nested_checkout(keeper, held, is_deadlock=False)
    left_out = keeper.nested_log_limit.passes()
    if left_out is None:
        return
    if left_out:
        _logger.warning("%d more nested checkouts were left out of this log", left_out)
    _logger.warning("%s", message)


def _nested_checkout(keeper: "Keeper", held: frozenset[Slot], *, is_deadlock: bool) -> str:
    loan = next(iter(held)).loan
    first = loan.stack() if isinstance(loan, Loan) else "  (not noted: leak_after is not set)\n"
    second = here()
    keeper.listeners.tell(NestedCheckoutSeen(first, second))
    why = (
        "every connection is held by a task or a request that waits for another one, so that none "
        "would ever come back"
        if is_deadlock
        else "all are lent: if enough tasks do so, all wait for each other"
    )
    return (
        f"A task or request that holds a connection of {keeper.pool.name} asks for another, and "
        f"{why}. Use the session or connection that it has, or end its transaction first, instead "
        f"of opening a second one.\nThe first was borrowed at:\n{first}"
        f"The second is asked for at:\n{second}"
        f"({keeper.pool.snapshot()}; nested_checkout={keeper.policy.nested_checkout})"
    )


def _held_by_caller(keeper: "Keeper") -> frozenset[Slot]:
    holding = holding_tasks.get()
    tasks = {asyncio.current_task(), *enclosing_tasks.get(), *(holding() if holding else ())}
    tasks.discard(None)
    return frozenset(
        slot for slot in keeper.ledger if slot.state is LENT and task_of(slot.loan) in tasks
    )


def _all_wait(keeper: "Keeper", held: frozenset[Slot]) -> bool:
    """Return whether every connection is held by somebody who waits for another."""
    waiting = held.union(*(waiter.held for waiter in keeper.ledger.waiters.queue))
    return all(slot.state is LENT and slot in waiting for slot in keeper.ledger)
