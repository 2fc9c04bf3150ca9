"""Callers that remember what they were told, ledgers to ask, and a driver that never fails."""

import math
from collections.abc import Container
from random import Random

from penstock.pool.housekeeper import Housekeeper
from penstock.pool.ledger import Ledger
from penstock.pool.queue import AdmissionPolicy, Rejection, RejectReason, Waiter
from penstock.pool.slot import CHECKED_OUT, IDLE, Action, Backoff, Close, Open, Ping, Slot

NOW = 1000.0
"""When a test begins, in seconds on a clock of its own."""


class Caller(Waiter):
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
        self.answers: list[Slot | Rejection] = []
        self.gone = gone

    def accept(self, slot: Slot) -> bool:
        """Take the slot, unless gone."""
        if not self.gone:
            self.answers.append(slot)
        return not self.gone

    def reject(self, rejection: Rejection) -> None:
        """Take note."""
        self.answers.append(rejection)

    @property
    def slot(self) -> Slot:
        """What it was checked out, which was its only answer."""
        [answer] = self.answers
        assert isinstance(answer, Slot)
        return answer

    @property
    def why(self) -> RejectReason:
        """Why it was refused, which was its only answer."""
        [answer] = self.answers
        assert isinstance(answer, Rejection)
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
        recycle=recycle,
        random=random,
        backoff=Backoff(random),
        admission=admission,
        lifo=lifo,
        connects_at_once=connects_at_once,
    )


def actions(ledger: Ledger) -> list[Action]:
    """Take what the ledger wants done."""
    taken = list(ledger.actions)
    ledger.actions.clear()
    return taken


def dispatch(ledger: Ledger, now: float = NOW) -> None:
    """Do whatever is ordered, at once and with success."""
    while ledger.actions:
        match ledger.actions.popleft():
            case Open(slot):
                ledger.opened(slot, now)
            case Close(slot):
                ledger.remove(slot, now)
            case Ping(slot):
                ledger.restore(slot, now)


def ask(
    ledger: Ledger, now: float = NOW, *, deadline: float = math.inf, retry_for: float = math.inf
) -> Caller:
    """Queue up where nothing is idle; a caller who got an idle slot has its answer already."""
    caller = Caller(deadline, retry_for=retry_for)
    slot = ledger.acquire(now)
    if slot is not None:
        caller.accept(slot)
    else:
        rejection = ledger.wait(caller, now)
        if rejection is not None:
            caller.reject(rejection)
    return caller


def checkout(ledger: Ledger, count: int, now: float = NOW) -> list[Slot]:
    """Return so many slots that are checked out, opened where need be."""
    callers = [ask(ledger, now) for _ in range(count)]
    dispatch(ledger, now)
    return [caller.slot for caller in callers]


def idle(ledger: Ledger, count: int, now: float = NOW) -> list[Slot]:
    """Return so many slots that have been checked out and returned, in this order."""
    slots = checkout(ledger, count, now)
    for slot in slots:
        ledger.release(slot, now)
    return slots


def refused(rejection: Rejection | None) -> RejectReason | None:
    """Return why, if at all."""
    return None if rejection is None else rejection.why


def only_what_is_due(
    housekeeper: Housekeeper, now: float, replaced: Container[Slot | None]
) -> list[Slot]:
    """Return no slot before its time, however many have the same."""
    slots = [slot for slot in housekeeper.ledger if slot.retire_at <= now and slot not in replaced]
    return [slot for slot in slots if slot.eviction is None and slot.state in (IDLE, CHECKED_OUT)]
