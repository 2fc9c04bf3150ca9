"""What keeps connections ready: pings after idleness, and the minimum that is idle."""

import pytest
from tests.unit.pool.callers import NOW, actions, ask, checkout, dispatch, idle, new_ledger

from penstock.pool.housekeeper import Housekeeper, HousekeeperPolicy
from penstock.pool.ledger import Ledger
from penstock.pool.slot import CHECKING, OPENING, Close, CloseReason, Open, Ping

NO = ConnectionError("no")


def worker(ledger: Ledger, *, min_idle: int = 0, keepalive: float = 0) -> Housekeeper:
    """Return a schedule that does only what it is told to."""
    return Housekeeper(ledger, HousekeeperPolicy(min_idle, 1e9, keepalive))


# Pinging.


def test_a_connection_is_pinged_when_it_has_been_idle_for_keepalive() -> None:
    ledger = new_ledger(1)
    [slot] = idle(ledger, 1)
    housekeeper = worker(ledger, keepalive=30.0)

    housekeeper.run(NOW + 29.9)
    assert actions(ledger) == []

    housekeeper.run(NOW + 30)
    assert actions(ledger) == [Ping(slot)]
    assert slot.state is CHECKING


def test_a_connection_that_is_used_is_not_pinged() -> None:
    ledger = new_ledger(2)
    _, resting = checkout(ledger, 2)
    ledger.release(resting, NOW)
    used = ledger.acquire(NOW + 20)
    assert used is resting
    ledger.release(used, NOW + 20)

    worker(ledger, keepalive=30.0).run(NOW + 45)

    assert actions(ledger) == []


def test_a_connection_that_answered_is_pinged_again_after_as_long() -> None:
    ledger = new_ledger(1)
    [slot] = idle(ledger, 1)
    housekeeper = worker(ledger, keepalive=30.0)
    housekeeper.run(NOW + 30)
    actions(ledger)

    ledger.restore(slot, NOW + 31)
    housekeeper.run(NOW + 60)
    assert actions(ledger) == []

    housekeeper.run(NOW + 61)
    assert actions(ledger) == [Ping(slot)]


def test_a_connection_that_does_not_answer_is_closed() -> None:
    ledger = new_ledger(1)
    [slot] = idle(ledger, 1)
    worker(ledger, keepalive=30.0).run(NOW + 30)
    actions(ledger)

    ledger.close_connection(slot, CloseReason.DEAD)

    assert actions(ledger) == [Close(slot, CloseReason.DEAD)]


def test_a_connection_that_is_being_pinged_is_not_checked_out_but_goes_to_who_waits() -> None:
    ledger = new_ledger(1)
    [slot] = idle(ledger, 1)
    worker(ledger, keepalive=30.0).run(NOW + 30)

    waiting = ask(ledger, NOW + 30)
    assert waiting.answers == []

    dispatch(ledger, NOW + 31)
    assert waiting.slot is slot


def test_only_so_many_are_pinged_in_a_run_those_first_that_were_idle_for_longest() -> None:
    ledger = new_ledger(5, connects_at_once=2)
    slots = idle(ledger, 5)
    slots[4].since = NOW - 1

    worker(ledger, keepalive=30.0).run(NOW + 30)

    assert actions(ledger) == [Ping(slots[4]), Ping(slots[0])]


def test_with_keepalive_0_nothing_is_pinged() -> None:
    ledger = new_ledger(1)
    idle(ledger, 1)

    worker(ledger, keepalive=0).run(NOW + 1e6)

    assert actions(ledger) == []


# Filling.


def test_the_minimum_is_opened_so_many_at_once() -> None:
    ledger = new_ledger(10, connects_at_once=2)
    housekeeper = worker(ledger, min_idle=5)

    housekeeper.run(NOW)
    assert ledger.opening == 2
    housekeeper.run(NOW)
    assert ledger.opening == 2

    for _ in range(3):
        dispatch(ledger)
        housekeeper.run(NOW)
    assert ledger.idle == 5
    assert ledger.tally.opened == 5


def test_what_is_checked_out_is_made_up_for_up_to_the_size() -> None:
    ledger = new_ledger(4, 4)
    checkout(ledger, 3)

    worker(ledger, min_idle=3).run(NOW)
    dispatch(ledger)

    assert (ledger.open, ledger.idle) == (4, 1)


def test_a_pool_without_size_has_its_minimum_as_well() -> None:
    ledger = new_ledger(0)

    worker(ledger, min_idle=3).run(NOW)
    dispatch(ledger)

    assert ledger.idle == 3


def test_what_is_lost_is_made_up_for() -> None:
    ledger = new_ledger(2)
    [first, _] = idle(ledger, 2)
    ledger.evict(first, CloseReason.DEAD)
    dispatch(ledger)

    worker(ledger, min_idle=2).run(NOW)
    dispatch(ledger)

    assert ledger.idle == 2


def test_a_connection_that_is_being_pinged_needs_no_substitute() -> None:
    ledger = new_ledger(10)
    idle(ledger, 3)
    housekeeper = worker(ledger, min_idle=3, keepalive=30.0)

    housekeeper.run(NOW + 30)

    assert (ledger.count(CHECKING), ledger.count(OPENING)) == (3, 0)


def test_while_connects_fail_the_minimum_is_tried_for_when_the_delay_is_over() -> None:
    ledger = new_ledger(2)
    housekeeper = worker(ledger, min_idle=1)
    housekeeper.run(NOW)
    order = ledger.actions.popleft()
    ledger.failed(order.slot, NOW, NO, refused=False)

    housekeeper.run(NOW)
    assert actions(ledger) == []

    housekeeper.run(ledger.backoff.until)
    assert len(actions(ledger)) == 1


def test_those_who_wait_are_tried_for_when_the_delay_is_over() -> None:
    ledger = new_ledger(2)
    checkout(ledger, 1)
    ask(ledger)
    order = ledger.actions.popleft()
    ledger.failed(order.slot, NOW, NO, refused=False)
    waiting = ask(ledger)

    worker(ledger).run(ledger.backoff.until)
    dispatch(ledger)

    assert waiting.slot


# Resting.


def test_at_rest_connections_are_opened_for_those_who_wait_only() -> None:
    ledger = new_ledger(3)
    housekeeper = worker(ledger, min_idle=2)
    housekeeper.is_paused = True
    housekeeper.run(NOW)
    assert actions(ledger) == []

    ask(ledger)
    housekeeper.run(NOW)
    assert [order.slot.for_housekeeping for order in actions(ledger)] == [False]

    housekeeper.is_paused = False
    housekeeper.run(NOW)
    assert [order.slot.for_housekeeping for order in actions(ledger)] == [True]


@pytest.mark.parametrize("recycle", [-1.0, 60.0])
def test_housekeeping_opens_nothing_in_a_closed_pool(recycle: float) -> None:
    ledger = new_ledger(3, 3, recycle=recycle)
    checkout(ledger, 1)
    ledger.close()

    worker(ledger, min_idle=2).run(NOW + 60)

    assert [order for order in actions(ledger) if isinstance(order, Open)] == []
