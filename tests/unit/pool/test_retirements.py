"""A day of lifetimes in virtual time: connections of one age do not retire together."""

import math
from collections import Counter
from collections.abc import Iterator
from functools import cache
from random import Random

import pytest
from tests.unit.pool.callers import actions, checkout, new_ledger, only_what_is_due

from penstock.pool.housekeeper import REPLACEMENTS_AT_ONCE, Housekeeper, HousekeeperPolicy
from penstock.pool.slot import (
    CHECKED_OUT,
    CHECKING,
    IDLE,
    OPENING,
    Close,
    CloseReason,
    Open,
    Ping,
    Slot,
)

pytestmark = pytest.mark.slow

DAY = 24 * 3600
SIZE, OVERFLOW, RECYCLE = 50, 10, 3600
JITTER = RECYCLE // 10
"""Seconds over which the retirements of one age are spread, as ``pool_recycle`` promises."""
SEEDS = (1, 2, 3)
LUCK = 0.001
"""Chance of a fault being seen where there is none, were the seeds not fixed."""


class Day:
    """A pool that lives through a day, second by second, and what was seen of it.

    Args:
        seed: Of the jitter, and of who checks out what.
        opening_takes: Seconds.
        closing_takes: Seconds.
    """

    def __init__(self, seed: int, opening_takes: int = 0, closing_takes: int = 0) -> None:
        self.ledger = new_ledger(SIZE, OVERFLOW, recycle=RECYCLE, connects_at_once=4, seed=seed)
        self.housekeeper = Housekeeper(self.ledger, HousekeeperPolicy())
        self.random = Random(-seed)
        self.takes = {Open: opening_takes, Close: closing_takes, Ping: 0}
        self.under_way: list[tuple[float, Open | Close | Ping]] = []
        self.checked_out: list[tuple[float, Slot]] = []
        self.retired: list[tuple[int, int]] = []
        """Second, and the round of its connection: those opened first are of round 0."""
        self.rounds = dict.fromkeys(checkout(self.ledger, SIZE, 0.0), 0)
        for slot in list(self.rounds):
            self.ledger.release(slot, 0.0)
        self.usable, self.open, self.replacing, self.oldest = [SIZE], [SIZE], [0], [0.0]

    def live(self, seconds: int = DAY) -> "Day":
        """Let the time pass."""
        for now in range(1, seconds):
            self.release_leases(now)
            self.housekeeper.run(now)
            if self.ledger.actions or self.under_way:
                self.poll()
                self.work(now)
                self.poll()
            self.acquire(now)
        return self

    def poll(self) -> None:
        """Note the figures that are bounded."""
        ledger = self.ledger
        self.usable.append(ledger.count(IDLE, CHECKED_OUT, CHECKING))
        self.open.append(ledger.open)
        self.replacing.append(
            sum(slot.state is OPENING and slot.replaces is not None for slot in ledger)
        )

    def work(self, now: int) -> None:
        """Do what is due by now of what was ordered, until nothing more comes of it."""
        while True:
            self.under_way += [(now + self.takes[type(order)], order) for order in self.take(now)]
            due = [order for at, order in self.under_way if at <= now]
            self.under_way = [(at, order) for at, order in self.under_way if at > now]
            if not due:
                return
            for order in due:
                self.finish(order, now)

    def take(self, now: int) -> Iterator[Open | Close | Ping]:
        """Yield new orders; a connection that is closed for its age has retired."""
        for order in actions(self.ledger):
            if isinstance(order, Close) and order.why is CloseReason.LIFETIME:
                self.retired.append((now, self.rounds[order.slot]))
            yield order

    def finish(self, order: Open | Close | Ping, now: int) -> None:
        """Report that the order was carried out."""
        slot = order.slot
        match order:
            case Open():
                self.rounds[slot] = self.rounds[slot.replaces] + 1 if slot.replaces else 0
                self.ledger.opened(slot, now)
            case Close():
                self.ledger.remove(slot, now)
            case Ping():
                self.ledger.restore(slot, now)

    def acquire(self, now: int) -> None:
        """Hand out a few connections for up to four seconds."""
        for _ in range(self.random.randrange(4)):
            slot = self.ledger.acquire(now)
            if slot is not None:
                self.oldest.append(now - slot.opened_at)
                self.checked_out.append((now + self.random.randrange(5), slot))

    def release_leases(self, now: int) -> None:
        """Give back what is no longer needed."""
        for until, slot in self.checked_out:
            if until <= now:
                self.ledger.release(slot, now)
        self.checked_out = [lease for lease in self.checked_out if lease[0] > now]


def pairs(seconds: list[int]) -> int:
    """Return how many pairs fall into the same second."""
    return sum(math.comb(count, 2) for count in Counter(seconds).values())


def pairs_by_chance(random: Random) -> int:
    """Return the pairs of a day in which every lifetime is drawn evenly from the window."""
    seconds = []
    for _ in range(SIZE):
        at = random.uniform(RECYCLE - JITTER, RECYCLE)
        while at < DAY:
            seconds.append(math.ceil(at))
            at = math.ceil(at) + random.uniform(RECYCLE - JITTER, RECYCLE)
    return pairs(seconds)


@cache
def most_by_chance() -> int:
    """Return what days of chance alone exceed in one of 1/LUCK cases."""
    random = Random(0)
    days = sorted(pairs_by_chance(random) for _ in range(2000))
    return days[math.ceil((1 - LUCK) * len(days)) - 1]


def most_per_round_by_chance(rounds: int) -> int:
    """Return what one of so many first rounds of chance alone exceeds in 1/LUCK cases."""
    mean = math.comb(SIZE, 2) / JITTER
    most, below = 0, math.exp(-mean)
    while (1 - below) * rounds > LUCK:
        most += 1
        below += math.exp(-mean) * mean**most / math.factorial(most)
    return most


def busiest_round(day: Day) -> int:
    """Return the most pairs that any round had."""
    seconds: dict[int, list[int]] = {}
    for second, number in day.retired:
        seconds.setdefault(number, []).append(second)
    return max(map(pairs, seconds.values()))


@pytest.fixture(scope="module", params=SEEDS)
def day(request: pytest.FixtureRequest) -> Day:
    seed: int = request.param
    return Day(seed).live()


def test_no_two_retire_in_the_same_second_more_than_chance_explains(day: Day) -> None:
    assert len(day.retired) >= SIZE * (DAY // RECYCLE - 1)
    assert pairs([second for second, _ in day.retired]) <= most_by_chance()
    rounds = len({number for _, number in day.retired})
    assert busiest_round(day) <= most_per_round_by_chance(rounds)


@pytest.mark.parametrize("jitter", [0.0, 0.03])
def test_with_less_jitter_chance_would_not_explain_it(
    jitter: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.pool.ledger.JITTER", jitter)
    monkeypatch.setattr(Housekeeper, "_due", only_what_is_due)

    day = Day(SEEDS[0]).live()

    assert pairs([second for second, _ in day.retired]) > most_by_chance()


def test_without_jitter_every_round_would_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.pool.ledger.JITTER", 0.0)
    monkeypatch.setattr(Housekeeper, "_due", only_what_is_due)

    day = Day(SEEDS[0]).live(2 * RECYCLE)

    assert busiest_round(day) > most_per_round_by_chance(DAY // RECYCLE)


def test_all_fifty_stay_usable_all_day(day: Day) -> None:
    assert min(day.usable) == SIZE


def test_the_limit_holds_all_day(day: Day) -> None:
    assert max(day.open) <= SIZE + OVERFLOW


def test_few_are_being_replaced_at_any_time(day: Day) -> None:
    assert max(day.replacing) <= REPLACEMENTS_AT_ONCE


def test_nothing_older_than_its_lifetime_is_checked_out(day: Day) -> None:
    assert len(day.oldest) > DAY
    assert RECYCLE - 10 < max(day.oldest) < RECYCLE


@pytest.mark.parametrize(("opening_takes", "closing_takes"), [(3, 0), (0, 3), (3, 3)])
def test_all_fifty_stay_usable_when_connecting_or_closing_is_slow(
    opening_takes: int, closing_takes: int
) -> None:
    day = Day(SEEDS[0], opening_takes, closing_takes).live(3 * RECYCLE)

    assert min(day.usable) >= SIZE
    assert max(day.open) <= SIZE + OVERFLOW
    assert max(day.replacing) <= REPLACEMENTS_AT_ONCE
    assert max(day.oldest) < RECYCLE
