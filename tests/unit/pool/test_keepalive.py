"""What keeps connections ready: pings after idleness, and the minimum that is idle."""

import pytest
from tests.unit.pool.askers import NOW, ask, carry_out, idle, lend, new_ledger, orders

from penstock.pool.housekeeper import Schedule, UpkeepPolicy
from penstock.pool.ledger import Check, Close, Ledger, Open
from penstock.pool.slot import CHECKING, OPENING, CloseReason

NO = ConnectionError("no")


def upkeep(ledger: Ledger, *, min_idle: int = 0, keepalive: float = 0) -> Schedule:
    """Return a schedule that does only what it is told to."""
    return Schedule(ledger, UpkeepPolicy(min_idle, 1e9, keepalive))


# Pinging.


def test_a_connection_is_pinged_when_it_has_been_idle_for_keepalive() -> None:
    ledger = new_ledger(1)
    [slot] = idle(ledger, 1)
    schedule = upkeep(ledger, keepalive=30.0)

    schedule.run(NOW + 29.9)
    assert orders(ledger) == []

    schedule.run(NOW + 30)
    assert orders(ledger) == [Check(slot)]
    assert slot.state is CHECKING


def test_a_connection_that_is_used_is_not_pinged() -> None:
    ledger = new_ledger(2)
    _, resting = lend(ledger, 2)
    ledger.give_back(resting, NOW)
    used = ledger.borrow(NOW + 20)
    assert used is resting
    ledger.give_back(used, NOW + 20)

    upkeep(ledger, keepalive=30.0).run(NOW + 45)

    assert orders(ledger) == []


def test_a_connection_that_answered_is_pinged_again_after_as_long() -> None:
    ledger = new_ledger(1)
    [slot] = idle(ledger, 1)
    schedule = upkeep(ledger, keepalive=30.0)
    schedule.run(NOW + 30)
    orders(ledger)

    ledger.restore(slot, NOW + 31)
    schedule.run(NOW + 60)
    assert orders(ledger) == []

    schedule.run(NOW + 61)
    assert orders(ledger) == [Check(slot)]


def test_a_connection_that_does_not_answer_is_closed() -> None:
    ledger = new_ledger(1)
    [slot] = idle(ledger, 1)
    upkeep(ledger, keepalive=30.0).run(NOW + 30)
    orders(ledger)

    ledger.discard(slot, CloseReason.DEAD)

    assert orders(ledger) == [Close(slot, CloseReason.DEAD)]


def test_a_connection_that_is_being_pinged_is_not_lent_but_goes_to_who_waits() -> None:
    ledger = new_ledger(1)
    [slot] = idle(ledger, 1)
    upkeep(ledger, keepalive=30.0).run(NOW + 30)

    waiting = ask(ledger, NOW + 30)
    assert waiting.answers == []

    carry_out(ledger, NOW + 31)
    assert waiting.slot is slot


def test_only_so_many_are_pinged_in_a_run_those_first_that_were_idle_for_longest() -> None:
    ledger = new_ledger(5, connects_at_once=2)
    slots = idle(ledger, 5)
    slots[4].since = NOW - 1

    upkeep(ledger, keepalive=30.0).run(NOW + 30)

    assert orders(ledger) == [Check(slots[4]), Check(slots[0])]


def test_with_keepalive_0_nothing_is_pinged() -> None:
    ledger = new_ledger(1)
    idle(ledger, 1)

    upkeep(ledger, keepalive=0).run(NOW + 1e6)

    assert orders(ledger) == []


# Filling.


def test_the_minimum_is_opened_so_many_at_once() -> None:
    ledger = new_ledger(10, connects_at_once=2)
    schedule = upkeep(ledger, min_idle=5)

    schedule.run(NOW)
    assert ledger.opening == 2
    schedule.run(NOW)
    assert ledger.opening == 2

    for _ in range(3):
        carry_out(ledger)
        schedule.run(NOW)
    assert ledger.idle == 5
    assert ledger.tally.opened == 5


def test_what_is_lent_is_made_up_for_up_to_the_size() -> None:
    ledger = new_ledger(4, 4)
    lend(ledger, 3)

    upkeep(ledger, min_idle=3).run(NOW)
    carry_out(ledger)

    assert (ledger.open, ledger.idle) == (4, 1)


def test_a_pool_without_size_has_its_minimum_as_well() -> None:
    ledger = new_ledger(0)

    upkeep(ledger, min_idle=3).run(NOW)
    carry_out(ledger)

    assert ledger.idle == 3


def test_what_is_lost_is_made_up_for() -> None:
    ledger = new_ledger(2)
    [first, _] = idle(ledger, 2)
    ledger.retire(first, CloseReason.DEAD)
    carry_out(ledger)

    upkeep(ledger, min_idle=2).run(NOW)
    carry_out(ledger)

    assert ledger.idle == 2


def test_a_connection_that_is_being_pinged_needs_no_substitute() -> None:
    ledger = new_ledger(10)
    idle(ledger, 3)
    schedule = upkeep(ledger, min_idle=3, keepalive=30.0)

    schedule.run(NOW + 30)

    assert (ledger.count(CHECKING), ledger.count(OPENING)) == (3, 0)


def test_while_connects_fail_the_minimum_is_tried_for_when_the_delay_is_over() -> None:
    ledger = new_ledger(2)
    schedule = upkeep(ledger, min_idle=1)
    schedule.run(NOW)
    order = ledger.orders.popleft()
    ledger.failed(order.slot, NOW, NO, refused=False)

    schedule.run(NOW)
    assert orders(ledger) == []

    schedule.run(ledger.backoff.until)
    assert len(orders(ledger)) == 1


def test_those_who_wait_are_tried_for_when_the_delay_is_over() -> None:
    ledger = new_ledger(2)
    lend(ledger, 1)
    ask(ledger)
    order = ledger.orders.popleft()
    ledger.failed(order.slot, NOW, NO, refused=False)
    waiting = ask(ledger)

    upkeep(ledger).run(ledger.backoff.until)
    carry_out(ledger)

    assert waiting.slot


# Resting.


def test_at_rest_connections_are_opened_for_those_who_wait_only() -> None:
    ledger = new_ledger(3)
    schedule = upkeep(ledger, min_idle=2)
    schedule.resting = True
    schedule.run(NOW)
    assert orders(ledger) == []

    ask(ledger)
    schedule.run(NOW)
    assert [order.slot.for_upkeep for order in orders(ledger)] == [False]

    schedule.resting = False
    schedule.run(NOW)
    assert [order.slot.for_upkeep for order in orders(ledger)] == [True]


@pytest.mark.parametrize("recycle", [-1.0, 60.0])
def test_upkeep_opens_nothing_in_a_closed_pool(recycle: float) -> None:
    ledger = new_ledger(3, 3, recycle=recycle)
    lend(ledger, 1)
    ledger.close()

    upkeep(ledger, min_idle=2).run(NOW + 60)

    assert [order for order in orders(ledger) if isinstance(order, Open)] == []
