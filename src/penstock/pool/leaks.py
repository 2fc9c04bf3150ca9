"""Loans that last too long, and tasks that wait for themselves."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from penstock.pool.errors import NestedCheckout
from penstock.pool.events import LoanLeaked, NestedCheckoutSeen
from penstock.pool.leak import LeakReport
from penstock.pool.loans import STATEMENT_KEY, Loan, here, where
from penstock.pool.policy import NestedCheckoutPolicy
from penstock.pool.refusal import Refused
from penstock.pool.slot import LENT, Slot

if TYPE_CHECKING:
    from penstock.pool.keeper import Keeper

__all__ = ["refuse_nested_checkout", "report_leaks", "report_nested_checkout"]

_logger = logging.getLogger("penstock.pool")

STATEMENT_LENGTH = 200


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
    report = LeakReport(
        seconds=now - slot.lent_at,
        route=loan.route() if loan.route else None,
        borrowed_at=loan.stack(),
        holder_at=where(loan.task),
        statement=" ".join(statement.split())[:STATEMENT_LENGTH] if statement else None,
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


def refuse_nested_checkout(keeper: "Keeper") -> None:
    """Look whether the task that is about to wait holds what it waits for.

    Raises:
        NestedCheckout: It does, and the policy is to refuse.
    """
    if keeper.policy.nested_checkout != NestedCheckoutPolicy.REFUSE:
        return
    message = _nested_checkout(keeper)
    if message is not None:
        raise NestedCheckout(message, Refused.NESTED, keeper.pool.snapshot())


def report_nested_checkout(keeper: "Keeper") -> None:
    """Log if the task that waits now holds what it waits for, and the policy is to warn of it."""
    if keeper.policy.nested_checkout != NestedCheckoutPolicy.WARN:
        return
    message = _nested_checkout(keeper)
    left_out = None if message is None else keeper.nested_log_limit.passes()
    if left_out is None:
        return
    if left_out:
        _logger.warning("%d more nested checkouts were left out of this log", left_out)
    _logger.warning("%s", message)


def _nested_checkout(keeper: "Keeper") -> str | None:
    loan = _loan_of(keeper, asyncio.current_task())
    if loan is None:
        return None
    first = loan.stack() if isinstance(loan, Loan) else "  (not noted: leak_after is not set)\n"
    second = here()
    keeper.listeners.tell(NestedCheckoutSeen(first, second))
    return (
        f"A task that holds a connection of {keeper.pool.name} asks for another, and all are lent: "
        "if enough tasks do so, all wait for each other. Pass the session or connection on instead "
        f"of opening a second one.\nThe first was borrowed at:\n{first}"
        f"The second is asked for at:\n{second}"
        f"({keeper.pool.snapshot()}; nested_checkout={keeper.policy.nested_checkout})"
    )


def _loan_of(keeper: "Keeper", task: "asyncio.Task[Any] | None") -> Any:
    for slot in keeper.ledger:
        loan = slot.loan
        if (loan.task if type(loan) is Loan else loan) is task and slot.state is LENT:
            return loan
    return None
