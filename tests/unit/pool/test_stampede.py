"""Lifetimes in virtual time: whatever ``pool_recycle`` is, few connections are opened at once."""

from collections import deque
from random import Random

import pytest
from tests.unit.pool.callers import Caller, checkout, new_ledger, only_what_is_due

from penstock.pool.housekeeper import Housekeeper, HousekeeperPolicy
from penstock.pool.slot import Action, Close, Open, Ping, Slot

STEP = 0.05
"""Seconds that opening or closing a connection takes."""
SIZES = (8, 20, 60)
LIFETIMES = (12, 20, 60, 300)
FEWEST = 3
"""Of eight, a quarter is two: what takes its turn and one that was due by itself may add one."""
NOBODY, FEW, ALL = 0.0, 0.2, 1.0
"""Share of the connections for which somebody asks at any moment."""


class Life:
    """A pool all of whose connections were opened at the same moment, and what became of it.

    Args:
        size: Connections.
        overflow: How many more there may be.
        recycle: ``pool_recycle``.
        demand: Share of them for which somebody asks at any moment.
        seed: Of the jitter, and of how long each lease lasts.
    """

    def __init__(self, size: int, overflow: int, recycle: float, demand: float, seed: int) -> None:
        self.ledger = new_ledger(size, overflow, recycle=recycle, seed=seed)
        self.housekeeper = Housekeeper(self.ledger, HousekeeperPolicy(overflow_idle=1e9))
        self.random = Random(-seed)
        self.wanted = round(size * demand)
        self.callers: list[Caller] = []
        self.leases: list[tuple[float, Slot]] = []
        self.opened: list[float] = []
        for slot in checkout(self.ledger, size, 0.0):
            self.ledger.release(slot, 0.0)

    def live(self, seconds: float) -> "Life":
        """Let time pass."""
        next_run = 0.0
        under_way: list[Action] = []
        for step in range(1, round(seconds / STEP)):
            now = step * STEP
            for order in under_way:
                self.finish(order, now)
            self.release(now)
            if now >= next_run:
                self.housekeeper.run(now)
                next_run = now + self.housekeeper.interval()
            self.acquire(now)
            under_way = list(self.ledger.actions)
            self.ledger.actions.clear()
            self.opened += [now for order in under_way if isinstance(order, Open)]
        return self

    def finish(self, order: Action, now: float) -> None:
        match order:
            case Open(slot):
                self.ledger.opened(slot, now)
            case Close(slot):
                self.ledger.remove(slot, now)
            case Ping(slot):
                self.ledger.restore(slot, now)

    def acquire(self, now: float) -> None:
        while len(self.leases) + len(self.callers) < self.wanted:
            caller = Caller()
            slot = self.ledger.acquire(now)
            if slot is not None:
                caller.accept(slot)
            else:
                self.ledger.wait(caller, now)
            self.callers.append(caller)
        served = [caller for caller in self.callers if caller.answers]
        self.callers = [caller for caller in self.callers if not caller.answers]
        self.leases += [(now + self.random.uniform(0.0, 0.5), caller.slot) for caller in served]

    def release(self, now: float) -> None:
        for until, slot in self.leases:
            if until <= now:
                self.ledger.release(slot, now)
        self.leases = [lease for lease in self.leases if lease[0] > now]

    def most_in_a_second(self) -> int:
        """Return how many connections were opened in the second in which there were most."""
        window: deque[float] = deque()
        most = 0
        for moment in self.opened:
            window.append(moment)
            while moment - window[0] > 1.0 - STEP / 2:
                window.popleft()
            most = max(most, len(window))
        return most


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overflow", [0, 10])
@pytest.mark.parametrize("recycle", LIFETIMES)
@pytest.mark.parametrize("demand", [NOBODY, FEW, ALL])
def test_at_most_a_quarter_is_opened_in_a_second(
    size: int, overflow: int, recycle: float, demand: float
) -> None:
    life = Life(size, overflow, recycle, demand, seed=1).live(4.5 * recycle)

    assert len(life.opened) >= 3 * size
    assert life.most_in_a_second() <= max(FEWEST, size / 4)


@pytest.mark.parametrize("recycle", [20, 60])
def test_if_each_waited_until_it_is_due_they_would_come_together(
    recycle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Housekeeper, "_due", only_what_is_due)

    life = Life(20, 10, recycle, ALL, seed=1).live(1.5 * recycle)

    assert life.most_in_a_second() > 5
