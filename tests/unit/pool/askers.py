"""Askers that remember what they were told, ledgers to ask, and a driver that never fails."""

import math
from collections.abc import Container
from random import Random

from penstock.pool.housekeeper import Schedule
from penstock.pool.ledger import Check, Close, Ledger, Open, Order
from penstock.pool.queue import AdmissionPolicy, Refusal, Refused, Waiter
from penstock.pool.slot import IDLE, LENT, Backoff, Lifetime, Slot

__all__ = [
    "NOW",
    "Asker",
    "ask",
    "carry_out",
    "idle",
    "lend",
    "new_ledger",
    "only_what_is_due",
    "orders",
    "refused",
]

NOW = 1000.0
"""When a test begins, in seconds on a clock of its own."""


class Asker(Waiter):
    """Somebody in a queue, who keeps every answer.

    Args:
        deadline: When it gives up.
        gone: Whether it wants nothing any more, as a task that was cancelled in the same tick.
        retry_for: Seconds for which a failed connect is tried again for it.
    """

    __slots__ = ("answers", "gone")

    def __init__(
        self, deadline: float = math.inf, *, gone: bool = False, retry_for: float = math.inf
    ) -> None:
        super().__init__(deadline, retry_for)
        self.answers: list[Slot | Refusal] = []
        self.gone = gone

    def accept(self, slot: Slot) -> bool:
        """Take the slot, unless gone."""
        if not self.gone:
            self.answers.append(slot)
        return not self.gone

    def refuse(self, refusal: Refusal) -> None:
        """Take note."""
        self.answers.append(refusal)

    @property
    def slot(self) -> Slot:
        """What it was lent, which was its only answer."""
        [answer] = self.answers
        assert isinstance(answer, Slot)
        return answer

    @property
    def why(self) -> Refused:
        """Why it was refused, which was its only answer."""
        [answer] = self.answers
        assert isinstance(answer, Refusal)
        return answer.why


def new_ledger(
    size: int = 2,
    overflow: int = 0,
    *,
    recycle: float = -1.0,
    lifo: bool = False,
    connects_at_once: int = 4,
    admission: AdmissionPolicy | None = None,
    seed: int = 1,
) -> Ledger:
    """Return an empty ledger whose chance is the same in every run."""
    random = Random(seed)
    return Ledger(
        size,
        overflow,
        lifetime=Lifetime(recycle, random),
        backoff=Backoff(random),
        admission=admission,
        lifo=lifo,
        connects_at_once=connects_at_once,
    )


def orders(ledger: Ledger) -> list[Order]:
    """Take what the ledger wants done."""
    taken = list(ledger.orders)
    ledger.orders.clear()
    return taken


def carry_out(ledger: Ledger, now: float = NOW) -> None:
    """Do whatever is ordered, at once and with success."""
    while ledger.orders:
        match ledger.orders.popleft():
            case Open(slot):
                ledger.opened(slot, now)
            case Close(slot):
                ledger.vacate(slot, now)
            case Check(slot):
                ledger.restore(slot, now)


def ask(
    ledger: Ledger, now: float = NOW, *, deadline: float = math.inf, retry_for: float = math.inf
) -> Asker:
    """Queue up where nothing is idle; an asker who got an idle slot has its answer already."""
    asker = Asker(deadline, retry_for=retry_for)
    slot = ledger.borrow(now)
    if slot is not None:
        asker.accept(slot)
    else:
        refusal = ledger.wait(asker, now)
        if refusal is not None:
            asker.refuse(refusal)
    return asker


def lend(ledger: Ledger, count: int, now: float = NOW) -> list[Slot]:
    """Return so many slots that are lent, opened where need be."""
    askers = [ask(ledger, now) for _ in range(count)]
    carry_out(ledger, now)
    return [asker.slot for asker in askers]


def idle(ledger: Ledger, count: int, now: float = NOW) -> list[Slot]:
    """Return so many slots that have been lent and returned, in this order."""
    slots = lend(ledger, count, now)
    for slot in slots:
        ledger.give_back(slot, now)
    return slots


def refused(refusal: Refusal | None) -> Refused | None:
    """Return why, if at all."""
    return None if refusal is None else refusal.why


def only_what_is_due(
    schedule: Schedule, now: float, replaced: Container[Slot | None]
) -> list[Slot]:
    """Return no slot before its time, however many have the same."""
    slots = [slot for slot in schedule._ledger if slot.retire_at <= now and slot not in replaced]
    return [slot for slot in slots if slot.doomed is None and slot.state in (IDLE, LENT)]
