"""What the ledger costs alone: a loan of an idle slot, and a hand-off with few or many waiters."""

import gc
import time
from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from penstock.pool.ledger import Ledger, Open
from penstock.pool.queue import Refusal, Waiter
from penstock.pool.slot import Backoff, Lifetime, Slot

__all__ = ["measure_ledger"]

SLOTS = 5


def measure_ledger(rounds: int, loans: int, queues: Sequence[int]) -> dict[str, list[float]]:
    """Measure all in turn, ``rounds`` times.

    Args:
        rounds: How often each has its turn.
        loans: Loans or hand-offs in one turn.
        queues: Numbers of waiters.

    Returns:
        Microseconds of CPU in each round: of a borrow and return by ``"loan"``, of a hand-off by
        the number of waiters.
    """
    subjects: dict[str, Callable[[], None]] = {"loan": _loan()}
    subjects |= {str(waiters): _hand_off(waiters) for waiters in queues}
    measured: dict[str, list[float]] = {subject: [] for subject in subjects}
    gc.collect()
    for number in range(rounds):
        for subject in list(subjects)[:: -1 if number % 2 else 1]:
            step = subjects[subject]
            begun = time.thread_time()
            for _ in range(loans):
                step()
            measured[subject].append((time.thread_time() - begun) / loans * 1e6)
    return measured


class Asker(Waiter):
    """A waiter who takes whatever it is handed.

    Args:
        slot: What it has already.
    """

    __slots__ = ("slot",)

    def __init__(self, slot: Slot | None = None) -> None:
        super().__init__()
        self.slot = slot

    def accept(self, slot: Slot) -> bool:
        """Take it."""
        self.slot = slot
        return True

    def refuse(self, refusal: Refusal) -> None:
        """Fail: nobody is to be refused here."""
        raise RuntimeError(refusal)


def _loan() -> Callable[[], None]:
    ledger = _open_ledger(SLOTS)

    def loan() -> None:
        ledger.give_back(_lent(ledger.borrow(1.0)), 1.0)

    return loan


def _hand_off(waiters: int) -> Callable[[], None]:
    ledger = _open_ledger(1)
    holder = Asker(ledger.borrow(1.0))
    queue = deque(Asker() for _ in range(waiters))
    for asker in queue:
        ledger.wait(asker, 1.0)

    def hand_off() -> None:
        nonlocal holder
        ledger.give_back(_lent(holder.slot), 1.0)
        ledger.wait(holder, 1.0)
        queue.append(holder)
        holder = queue.popleft()

    return hand_off


def _open_ledger(connections: int) -> Ledger:
    random = Random(1)  # noqa: S311 - jitter, no secret
    ledger = Ledger(
        connections,
        0,
        lifetime=Lifetime(-1.0, random),
        backoff=Backoff(random),
        connects_at_once=connections,
    )
    for _ in range(connections):
        ledger.order_open(0.0)
    while ledger.orders:
        order = ledger.orders.popleft()
        if not isinstance(order, Open):
            raise TypeError(order)
        ledger.opened(order.slot, 0.0)
    return ledger


def _lent(slot: Slot | None) -> Slot:
    if slot is None:
        raise RuntimeError("the ledger lent nothing")
    return slot
