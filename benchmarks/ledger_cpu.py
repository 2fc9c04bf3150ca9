"""What the ledger costs alone: a lease of an idle slot, and a hand-off with few or many waiters."""

import gc
import time
from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from penstock.pool.ledger import Ledger
from penstock.pool.queue import Rejection, Waiter
from penstock.pool.slot import Backoff, Open, Slot

SLOTS = 5


def measure_ledger(rounds: int, leases: int, queues: Sequence[int]) -> dict[str, list[float]]:
    """Measure all in turn, ``rounds`` times.

    Args:
        rounds: How often each has its turn.
        leases: Leases or hand-offs in one turn.
        queues: Numbers of waiters.

    Returns:
        Microseconds of CPU in each round: of a check out and return by ``"lease"``, of a hand-off
        by the number of waiters.
    """
    subjects: dict[str, Callable[[], None]] = {"lease": _loan()}
    subjects |= {str(waiters): _hand_off(waiters) for waiters in queues}
    measured: dict[str, list[float]] = {subject: [] for subject in subjects}
    gc.collect()
    for number in range(rounds):
        for subject in list(subjects)[:: -1 if number % 2 else 1]:
            step = subjects[subject]
            begun = time.thread_time()
            for _ in range(leases):
                step()
            measured[subject].append((time.thread_time() - begun) / leases * 1e6)
    return measured


class Caller(Waiter):
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

    def reject(self, rejection: Rejection) -> None:
        """Fail: nobody is to be refused here."""
        raise RuntimeError(rejection)


def _loan() -> Callable[[], None]:
    ledger = _open_ledger(SLOTS)

    def lease() -> None:
        ledger.release(_lent(ledger.acquire(1.0)), 1.0)

    return lease


def _hand_off(waiters: int) -> Callable[[], None]:
    ledger = _open_ledger(1)
    holder = Caller(ledger.acquire(1.0))
    queue = deque(Caller() for _ in range(waiters))
    for caller in queue:
        ledger.wait(caller, 1.0)

    def hand_off() -> None:
        nonlocal holder
        ledger.release(_lent(holder.slot), 1.0)
        ledger.wait(holder, 1.0)
        queue.append(holder)
        holder = queue.popleft()

    return hand_off


def _open_ledger(connections: int) -> Ledger:
    random = Random(1)  # noqa: S311 - jitter, no secret
    ledger = Ledger(
        connections,
        0,
        recycle=-1.0,
        random=random,
        backoff=Backoff(random),
        connects_at_once=connections,
    )
    for _ in range(connections):
        ledger.add_connection(0.0)
    while ledger.actions:
        order = ledger.actions.popleft()
        if not isinstance(order, Open):
            raise TypeError(order)
        ledger.opened(order.slot, 0.0)
    return ledger


def _lent(slot: Slot | None) -> Slot:
    if slot is None:
        raise RuntimeError("the ledger checked out nothing")
    return slot
