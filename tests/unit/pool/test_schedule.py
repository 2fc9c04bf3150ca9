"""Upkeep: replacing, shrinking, pinging and filling, when each of them is due."""

import pytest
from tests.unit.pool.askers import NOW, carry_out, idle, lend, new_ledger, orders

from penstock.pool.ledger import Ledger
from penstock.pool.orders import Check, Close, Open
from penstock.pool.schedule import REPLACEMENTS_AT_ONCE, Schedule, UpkeepPolicy
from penstock.pool.slot import CLOSING, IDLE, OPENING, CloseReason, Slot

NO = ConnectionError("no")
NEVER = 1e9


def upkeep(
    ledger: Ledger, *, min_idle: int = 0, overflow_idle: float = NEVER, keepalive: float = 0
) -> Schedule:
    """Return a schedule that does only what it is told to."""
    return Schedule(ledger, UpkeepPolicy(min_idle, overflow_idle, keepalive))


def opened_by(ledger: Ledger) -> list[Slot]:
    """Take the orders, each of them to open a connection that nobody waits for."""
    taken = orders(ledger)
    slots = [order.slot for order in taken if isinstance(order, Open)]
    assert len(slots) == len(taken)
    assert all(slot.for_upkeep for slot in slots)
    return slots


def run(schedule: Schedule, ledger: Ledger, start: float, end: float) -> None:
    """Run once a second, and do at once what is due."""
    for second in range(int(end - start) + 1):
        schedule.run(start + second)
        carry_out(ledger, start + second)


# Replacing.


def test_nothing_is_replaced_before_its_time() -> None:
    ledger = new_ledger(1, 1, recycle=60.0)
    [slot] = idle(ledger, 1)

    upkeep(ledger).run(slot.retire_at - 0.001)

    assert orders(ledger) == []


def test_a_replacement_is_opened_first_and_the_old_one_closed_after() -> None:
    ledger = new_ledger(1, 1, recycle=60.0)
    [old] = idle(ledger, 1)
    due = old.retire_at

    upkeep(ledger).run(due)
    [new] = opened_by(ledger)
    assert new.replaces is old
    assert old.state is IDLE
    assert ledger.borrow(due) is old
    ledger.give_back(old, due)

    ledger.opened(new, due + 1)
    assert orders(ledger) == [Close(old, CloseReason.LIFETIME)]
    assert ledger.borrow(due + 1) is new
    assert new.replaces is None


def test_an_old_one_that_is_lent_is_closed_when_it_comes_back() -> None:
    ledger = new_ledger(1, 1, recycle=60.0)
    [old] = lend(ledger, 1)
    upkeep(ledger).run(old.retire_at)
    carry_out(ledger, old.retire_at)
    assert (ledger.open, ledger.idle) == (2, 1)

    ledger.give_back(old, old.retire_at)

    assert orders(ledger) == [Close(old, CloseReason.LIFETIME)]


def test_so_many_are_replaced_at_once_and_the_others_go_on_working() -> None:
    ledger = new_ledger(5, 5, recycle=60.0)
    old = idle(ledger, 5)
    oldest = sorted(old, key=lambda slot: slot.retire_at)
    schedule, due = upkeep(ledger), oldest[-1].retire_at

    schedule.run(due)
    new = opened_by(ledger)
    schedule.run(due)

    assert len(new) == REPLACEMENTS_AT_ONCE
    assert orders(ledger) == []
    assert [slot.state for slot in old] == [IDLE] * 5
    assert [slot.replaces for slot in new] == oldest[:2]


def test_all_that_are_due_are_replaced_in_the_end() -> None:
    ledger = new_ledger(5, 5, recycle=60.0)
    old = idle(ledger, 5)
    due = max(slot.retire_at for slot in old)

    run(upkeep(ledger), ledger, due, due + 4)

    assert ledger.idle == 5
    assert not set(old) & set(ledger)


def test_one_is_replaced_although_another_is_still_being_closed() -> None:
    ledger = new_ledger(2, 2, recycle=60.0)
    first, second = sorted(idle(ledger, 2), key=lambda slot: slot.retire_at)
    schedule = upkeep(ledger)
    schedule.run(first.retire_at)
    ledger.opened(opened_by(ledger)[0], first.retire_at)
    orders(ledger)
    assert first.state is CLOSING

    schedule.run(second.retire_at)

    [new] = opened_by(ledger)
    assert new.replaces is second


def test_replacing_keeps_to_the_number_of_parallel_connects() -> None:
    ledger = new_ledger(3, 3, recycle=60.0, connects_at_once=1)
    old = idle(ledger, 3)

    upkeep(ledger).run(max(slot.retire_at for slot in old))

    assert ledger.opening == 1


def test_without_room_the_old_one_is_closed_first_and_made_up_for() -> None:
    ledger = new_ledger(2, 0, recycle=60.0)
    old = min(idle(ledger, 2), key=lambda slot: slot.retire_at)
    schedule, due = upkeep(ledger), old.retire_at

    schedule.run(due)
    assert orders(ledger) == [Close(old, CloseReason.LIFETIME)]

    ledger.vacate(old, due)
    schedule.run(due)
    assert len(opened_by(ledger)) == 1
    assert ledger.open == 2


def test_above_the_size_the_old_one_goes_without_a_replacement() -> None:
    ledger = new_ledger(1, 2, recycle=60.0)
    old = min(idle(ledger, 3), key=lambda slot: slot.retire_at)

    upkeep(ledger).run(old.retire_at)

    assert orders(ledger) == [Close(old, CloseReason.LIFETIME)]


def test_a_failing_replacement_keeps_the_old_one_until_it_expires() -> None:
    ledger = new_ledger(1, 1, recycle=60.0)
    [old] = idle(ledger, 1)
    schedule, due = upkeep(ledger), old.retire_at

    schedule.run(due)
    ledger.failed(opened_by(ledger)[0], due, NO, refused=False)
    schedule.run(due)
    assert orders(ledger) == []
    assert ledger.borrow(due) is old
    ledger.give_back(old, due)

    schedule.run(ledger.backoff.until)
    assert opened_by(ledger)[0].replaces is old

    assert ledger.borrow(old.expires_at) is None
    assert orders(ledger) == [Close(old, CloseReason.LIFETIME)]


def test_a_slot_gets_one_replacement_however_long_that_takes() -> None:
    ledger = new_ledger(1, 3, recycle=60.0)
    [old] = idle(ledger, 1)
    schedule = upkeep(ledger)
    schedule.run(old.retire_at)
    assert len(opened_by(ledger)) == 1

    schedule.run(old.expires_at)
    schedule.run(old.expires_at + 1)

    assert orders(ledger) == []


# Shrinking.


def test_overflow_that_nobody_needs_is_closed_after_overflow_idle() -> None:
    ledger = new_ledger(2, 3)
    idle(ledger, 5)
    schedule = upkeep(ledger, overflow_idle=60.0)

    run(schedule, ledger, NOW, NOW + 59)
    assert ledger.open == 5

    run(schedule, ledger, NOW + 60, NOW + 60)
    assert ledger.open == 2

    run(schedule, ledger, NOW + 61, NOW + 600)
    assert ledger.open == 2


def test_overflow_that_is_needed_now_and_then_is_kept() -> None:
    ledger = new_ledger(2, 3)
    schedule = upkeep(ledger, overflow_idle=60.0)

    for second in range(600):
        if second % 20 == 0:
            idle(ledger, 5, NOW + second)
        run(schedule, ledger, NOW + second, NOW + second)

    assert ledger.tally.opened == 5
    assert ledger.tally.closed == 0


def test_of_the_overflow_only_what_nobody_needed_is_closed() -> None:
    ledger = new_ledger(2, 3)
    idle(ledger, 5)
    schedule = upkeep(ledger, overflow_idle=60.0)

    for second in range(61):
        if second == 20:
            idle(ledger, 4, NOW + second)
        run(schedule, ledger, NOW + second, NOW + second)

    assert ledger.open == 4


def test_what_has_been_idle_for_longest_goes_first() -> None:
    ledger = new_ledger(2, 1)
    first, second, third = idle(ledger, 3)
    first.since = NOW + 1

    run(upkeep(ledger, overflow_idle=60.0), ledger, NOW, NOW + 60)

    assert set(ledger) == {first, third}
    assert second.state is CLOSING


def test_what_is_already_being_closed_does_not_count_as_overflow() -> None:
    ledger = new_ledger(2, 2)
    lost = idle(ledger, 4)[0]
    ledger.retire(lost, CloseReason.DEAD)
    orders(ledger)

    run(upkeep(ledger, overflow_idle=60.0), ledger, NOW, NOW + 60)

    assert ledger.idle == 2


def test_a_pool_of_size_0_keeps_as_many_as_were_ever_wanted() -> None:
    ledger = new_ledger(0)
    idle(ledger, 7)

    run(upkeep(ledger, overflow_idle=60.0), ledger, NOW, NOW + 600)

    assert ledger.idle == 7


def test_the_size_is_kept_however_long_it_is_idle() -> None:
    ledger = new_ledger(3, 2)
    idle(ledger, 3)

    run(upkeep(ledger, overflow_idle=60.0), ledger, NOW, NOW + 600)

    assert (ledger.idle, ledger.tally.closed) == (3, 0)


@pytest.mark.parametrize("state", [OPENING, CLOSING])
def test_an_order_under_way_is_not_given_again(state: object) -> None:
    ledger = new_ledger(2, 2, recycle=60.0)
    [slot] = idle(ledger, 1)
    schedule, due = upkeep(ledger), slot.retire_at
    schedule.run(due)
    if state is CLOSING:
        ledger.opened(opened_by(ledger)[0], due)
    orders(ledger)

    schedule.run(due)

    assert ledger.count(OPENING, CLOSING) == 1
    assert orders(ledger) == []


def test_pinging_belongs_to_the_same_run() -> None:
    ledger = new_ledger(1)
    [slot] = idle(ledger, 1)

    upkeep(ledger, keepalive=30.0).run(NOW + 30)

    assert orders(ledger) == [Check(slot)]
