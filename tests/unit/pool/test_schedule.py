"""Replacing what has lived its time: the new connection first, and few at once."""

import pytest
from tests.unit.pool.askers import NOW, carry_out, idle, lend, new_ledger, orders

from penstock.pool.housekeeper import REPLACEMENTS_AT_ONCE, Schedule, UpkeepPolicy
from penstock.pool.ledger import Check, Close, Ledger, Open
from penstock.pool.slot import CLOSING, IDLE, OPENING, CloseReason, Slot

NO = ConnectionError("no")


def upkeep(ledger: Ledger, keepalive: float = 0) -> Schedule:
    """Return a schedule that closes no overflow, and pings only if it is told to."""
    return Schedule(ledger, UpkeepPolicy(overflow_idle=1e9, keepalive=keepalive))


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


def test_without_room_one_leaves_at_a_time() -> None:
    ledger = new_ledger(3, 0, recycle=60.0)
    old = idle(ledger, 3)
    schedule, due = upkeep(ledger), max(slot.retire_at for slot in old)

    schedule.run(due)
    schedule.run(due + 1)

    assert ledger.count(CLOSING) == 1
    assert ledger.idle == 2


def test_what_was_made_up_for_is_not_made_up_for_again() -> None:
    ledger = new_ledger(2, 0, recycle=60.0)
    old = min(idle(ledger, 2), key=lambda slot: slot.retire_at)
    schedule, due = upkeep(ledger), old.retire_at
    run(schedule, ledger, due, due + 1)
    [lost] = [slot for slot in ledger if slot.opened_at >= due]
    ledger.retire(lost, CloseReason.DEAD)

    run(schedule, ledger, due + 2, due + 3)

    assert ledger.open == 1


def test_a_long_loan_that_is_due_does_not_keep_the_others_from_being_replaced() -> None:
    ledger = new_ledger(2, 0, recycle=60.0)
    long, other = lend(ledger, 2)
    ledger.give_back(other, NOW)
    schedule = upkeep(ledger)
    long.retire_at = NOW + 50
    schedule.run(NOW + 50)

    other.retire_at = NOW + 55
    schedule.run(NOW + 55)

    assert orders(ledger) == [Close(other, CloseReason.LIFETIME)]


def test_above_the_size_the_old_one_goes_without_a_replacement() -> None:
    ledger = new_ledger(1, 2, recycle=60.0)
    old = min(idle(ledger, 3), key=lambda slot: slot.retire_at)

    upkeep(ledger).run(old.retire_at)

    assert orders(ledger) == [Close(old, CloseReason.LIFETIME)]


def test_of_two_that_are_due_only_the_one_above_the_size_goes_without_a_replacement() -> None:
    ledger = new_ledger(1, 2, recycle=60.0)
    first, second = sorted(idle(ledger, 2), key=lambda slot: slot.retire_at)

    upkeep(ledger).run(second.retire_at)

    close, open_order = orders(ledger)
    assert close == Close(first, CloseReason.LIFETIME)
    assert open_order.slot.replaces is second


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
