"""Overflow that nobody needs any more: when it goes, and what stays."""

from tests.unit.pool.callers import NOW, actions, dispatch, idle, new_ledger

from penstock.pool.housekeeper import Housekeeper, HousekeeperPolicy
from penstock.pool.ledger import Ledger
from penstock.pool.slot import CLOSING, CloseReason


def worker(ledger: Ledger, overflow_idle: float = 60.0) -> Housekeeper:
    """Return a schedule that pings nothing."""
    return Housekeeper(ledger, HousekeeperPolicy(overflow_idle=overflow_idle, keepalive=0))


def run(housekeeper: Housekeeper, ledger: Ledger, start: float, end: float) -> None:
    """Run once a second, and do at once what is due."""
    for second in range(int(end - start) + 1):
        housekeeper.run(start + second)
        dispatch(ledger, start + second)


def test_overflow_that_nobody_needs_is_closed_after_overflow_idle() -> None:
    ledger = new_ledger(2, 3)
    idle(ledger, 5)
    housekeeper = worker(ledger, overflow_idle=60.0)

    run(housekeeper, ledger, NOW, NOW + 59)
    assert ledger.open == 5

    run(housekeeper, ledger, NOW + 60, NOW + 60)
    assert ledger.open == 2

    run(housekeeper, ledger, NOW + 61, NOW + 600)
    assert ledger.open == 2


def test_overflow_that_is_needed_now_and_then_is_kept() -> None:
    ledger = new_ledger(2, 3)
    housekeeper = worker(ledger, overflow_idle=60.0)

    for second in range(600):
        if second % 20 == 0:
            idle(ledger, 5, NOW + second)
        run(housekeeper, ledger, NOW + second, NOW + second)

    assert ledger.tally.opened == 5
    assert ledger.tally.closed == 0


def test_of_the_overflow_only_what_nobody_needed_is_closed() -> None:
    ledger = new_ledger(2, 3)
    idle(ledger, 5)
    housekeeper = worker(ledger, overflow_idle=60.0)

    for second in range(61):
        if second == 20:
            idle(ledger, 4, NOW + second)
        run(housekeeper, ledger, NOW + second, NOW + second)

    assert ledger.open == 4

    run(housekeeper, ledger, NOW + 61, NOW + 79)
    assert ledger.open == 4


def test_what_has_been_idle_for_longest_goes_first() -> None:
    ledger = new_ledger(2, 1)
    first, second, third = idle(ledger, 3)
    first.since = NOW + 1

    run(worker(ledger, overflow_idle=60.0), ledger, NOW, NOW + 60)

    assert set(ledger) == {first, third}
    assert second.state is CLOSING


def test_what_is_already_being_closed_does_not_count_as_overflow() -> None:
    ledger = new_ledger(2, 2)
    lost = idle(ledger, 4)[0]
    ledger.evict(lost, CloseReason.DEAD)
    actions(ledger)

    run(worker(ledger, overflow_idle=60.0), ledger, NOW, NOW + 60)

    assert ledger.idle == 2


def test_a_pool_of_size_0_keeps_as_many_as_were_ever_wanted() -> None:
    ledger = new_ledger(0)
    idle(ledger, 7)

    run(worker(ledger, overflow_idle=60.0), ledger, NOW, NOW + 600)

    assert ledger.idle == 7


def test_the_size_is_kept_however_long_it_is_idle() -> None:
    ledger = new_ledger(3, 2)
    idle(ledger, 3)

    run(worker(ledger, overflow_idle=60.0), ledger, NOW, NOW + 600)

    assert (ledger.idle, ledger.tally.closed) == (3, 0)
